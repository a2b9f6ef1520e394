/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sizes, rates and times, both ways. K M G T and KiB MiB ... are powers of 1024. */
#ifndef MIGTOOL_UNITS_H
#define MIGTOOL_UNITS_H

#include <stddef.h>
#include <stdint.h>

/*
 * "4096", "64K", "1GiB", "10m"; suffixes K M G T P, alone or with "iB", in any case. 0 or -1: not a
 * size, or over 2^64-1. No sign, no fraction, no "KB" (1000 or 1024?).
 */
int units_parse_size(const char *s, uint64_t *out);

/* A decimal integer, all of the string. 0 or -1. */
int units_parse_u64(const char *s, uint64_t *out);

/* "512 B", "1.50 GiB", cut, not rounded. Returns buf. */
char *units_format_size(uint64_t bytes, char *buf, size_t len);

/* As units_parse_size reads it, nothing lost: "64MiB", "1000". Returns buf. */
char *units_format_exact(uint64_t bytes, char *buf, size_t len);

/* "1:02:03", "2:03", "4.2 s", "17 ms" from milliseconds, cut, not rounded. Returns buf. */
char *units_format_ms(uint64_t ms, char *buf, size_t len);

/* The value of a hexadecimal digit of any case; -1: it is none. */
int hex_digit(char c);

/* 36 characters, hex in any case, to 16 bytes and back (lower case). parse: 0 or -1. */
int uuid_parse(const char *s, uint8_t out[16]);
char *uuid_format(const uint8_t uuid[16], char buf[37]);

#endif
