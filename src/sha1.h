/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SHA-1 with a key (HMAC, RFC 2104), which hashed names in known_hosts are made with. It protects
 * nothing here: it only tells whether a name is the one that was hashed.
 */
#ifndef MIGTOOL_SHA1_H
#define MIGTOOL_SHA1_H

#include <stddef.h>
#include <stdint.h>

#define SHA1_SIZE 20

void sha1(uint8_t out[SHA1_SIZE], const void *buf, size_t len);
void sha1_hmac(uint8_t out[SHA1_SIZE], const void *key, size_t keylen, const void *buf, size_t len);

#endif
