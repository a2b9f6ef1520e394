/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The boot sector as a 64 KiB firmware: the guest runs at once, no disk is needed, and nobody else's
 * firmware is in its memory. The sector is copied to where a PC's firmware would have loaded it.
 */
	.code16
	.text
	.globl	_start
_start:
	cld
	movw	$0xf000, %ax
	movw	%ax, %ds
	xorw	%ax, %ax
	movw	%ax, %es
	movw	$sector, %si
	movw	$0x7c00, %di
	movw	$256, %cx
	rep movsw
	ljmp	$0, $0x7c00
sector:
	.incbin	"boot.img"

	.org	0xfff0
	ljmp	$0xf000, $_start
	.org	0x10000
