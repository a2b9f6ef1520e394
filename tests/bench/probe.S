/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A boot sector that measures what a guest's page faults cost under QEMU.
 *
 * It fills PAGES pages from START on with a pattern of their addresses, says `filled` on the serial
 * line and waits there for a byte. Then it reads each page once, in an order that jumps about, and
 * notes what that took, in ticks of the time stamp counter, in one word a page from LOG on. In the
 * end it says `done`, or `bad` if a page did not hold what it should.
 *
 * Values from outside: START, LOG (bytes), PAGES (a power of two).
 */

#define PORT_A		0x92
#define PORT_A_A20	0x02
#define COM1		0x3f8
#define COM1_LINE_STATUS (COM1 + 5)
#define DATA_READY	0x01
#define THR_EMPTY	0x20
#define STACK		0x7000
#define CODE_SELECTOR	0x08
#define DATA_SELECTOR	0x10
#define GOLDEN		0x9e3779b1

	.code16
	.text
	.globl	_start
_start:
	cli
	cld
	xorw	%ax, %ax
	movw	%ax, %ds
	lgdtl	gdt_pointer
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmpl	$CODE_SELECTOR, $protected

	.code32
protected:
	movw	$DATA_SELECTOR, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movl	$STACK, %esp
	movb	$PORT_A_A20, %al
	outb	%al, $PORT_A

	movl	$START, %edi
fill:
	imull	$GOLDEN, %edi, %eax
	stosl
	cmpl	$(START + PAGES * 4096), %edi
	jb	fill
	movl	$filled, %ebx
	call	print

wait:
	movw	$COM1_LINE_STATUS, %dx
	inb	%dx, %al
	testb	$DATA_READY, %al
	jz	wait

	/* %esi: the page's number; %ebp: how many pages were read */
	xorl	%esi, %esi
	xorl	%ebp, %ebp
probe:
	imull	$1664525, %esi
	addl	$1013904223, %esi
	andl	$(PAGES - 1), %esi
	movl	%esi, %edi
	shll	$12, %edi
	addl	$START, %edi
	rdtsc
	movl	%eax, %ecx
	movl	(%edi), %ebx
	rdtsc
	subl	%ecx, %eax
	movl	%eax, LOG(, %ebp, 4)
	imull	$GOLDEN, %edi, %eax
	cmpl	%eax, %ebx
	jne	wrong
	incl	%ebp
	cmpl	$PAGES, %ebp
	jb	probe
	movl	$done, %ebx
	jmp	end
wrong:
	movl	$bad, %ebx
end:
	call	print
	hlt
	jmp	end

/* Writes the string at %ebx, which ends in a newline, to the serial line. */
print:
	movw	$COM1_LINE_STATUS, %dx
	inb	%dx, %al
	testb	$THR_EMPTY, %al
	jz	print
	movb	(%ebx), %al
	incl	%ebx
	movw	$COM1, %dx
	outb	%al, %dx
	cmpb	$'\n', %al
	jne	print
	ret

filled:
	.ascii	"filled\n"
done:
	.ascii	"done\n"
bad:
	.ascii	"bad\n"

	.balign	8
gdt:
	.quad	0
	.quad	0x00cf9a000000ffff
	.quad	0x00cf92000000ffff
gdt_pointer:
	.word	gdt_pointer - gdt - 1
	.long	gdt

	.org	_start + 510
	.byte	0x55, 0xaa
