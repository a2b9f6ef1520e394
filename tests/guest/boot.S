/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest in 510 bytes, which is a boot sector and, wrapped by boot-rom.S, a firmware.
 *
 * It fills [FILL_START, FILL_END) with a pattern that depends on the address alone and never changes
 * it again; it goes on checking it, a few pages a loop, and writes `bad` on the serial line when a
 * byte differs. The DIRTY_PAGES pages from DIRTY_START on are rewritten pseudo-randomly: of 64 times
 * once the whole page with zeros, NOISE times the whole page (too much for a delta), else two words
 * of it. All other memory stays as the firmware left it. TICK_LOOPS loops, at HZ loops a second, make a line `tick N`
 * on the serial port, N counting from 1 without gaps: whoever joins the output of source and
 * destination sees at once whether the guest went on where it stopped.
 *
 * Before each write to a page A20 is switched off and on: under TCG QEMU 7.2 misses writes through a
 * TLB entry that is older than the last look at the dirty bitmap, and switching A20 drops them all.
 *
 * Values that make-boot gives: FILL_START FILL_END DIRTY_START (bytes, multiples of
 * 4096, at least 1 MiB), DIRTY_PAGES (a power of two), WRITES (pages a loop), NOISE (0..62), CHECKS
 * (pages a loop), HZ (19..1000), TICK_LOOPS.
 */

#define PIC1		0x20
#define PIC1_DATA	0x21
#define PIC2_DATA	0xa1
#define PIT_CHANNEL0	0x40
#define PIT_CONTROL	0x43
#define PIT_FREQUENCY	1193182
#define APIC_LINT0	0xfee00350
#define APIC_EXTINT	0x700	/* takes what the PIC says; masked after reset */
#define PORT_A		0x92
#define PORT_A_A20	0x02
#define COM1		0x3f8
#define COM1_LINE_STATUS (COM1 + 5)
#define THR_EMPTY	0x20

#define IRQ_BASE	0x20
#define IDT		0x1000	/* IRQ_BASE + 1 gates, below the stack */
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
	lidtl	idt_pointer
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

	/* One interrupt, the timer's; its handler only lets hlt return. */
	movl	$APIC_EXTINT, APIC_LINT0
	movl	$(CODE_SELECTOR << 16), %eax
	movw	$timer_interrupt, %ax
	movl	%eax, IDT + 8 * IRQ_BASE
	movl	$0x8e00, IDT + 8 * IRQ_BASE + 4
	movb	$0x11, %al
	outb	%al, $PIC1
	movb	$IRQ_BASE, %al
	outb	%al, $PIC1_DATA
	movb	$0x04, %al
	outb	%al, $PIC1_DATA
	movb	$0x03, %al		/* automatic end of interrupt */
	outb	%al, $PIC1_DATA
	movb	$0xfe, %al
	outb	%al, $PIC1_DATA
	movb	$0xff, %al
	outb	%al, $PIC2_DATA
	movb	$0x34, %al
	outb	%al, $PIT_CONTROL
	movb	$((PIT_FREQUENCY / HZ) & 0xff), %al
	outb	%al, $PIT_CHANNEL0
	movb	$((PIT_FREQUENCY / HZ) >> 8), %al
	outb	%al, $PIT_CHANNEL0

	movl	$FILL_START, %edi
fill:
	call	pattern
	stosl
	cmpl	$FILL_END, %edi
	jb	fill

	movl	$FILL_START, %esi	/* what is checked next */
	sti

/* %esi: the check's position; %ebp: loops until the next tick; all else is scratch. */
tick:
	movl	$TICK_LOOPS, %ebp
loop:
	hlt
	movl	$WRITES, %ecx
1:
	call	dirty_page
	decl	%ecx
	jnz	1b

	movl	$(CHECKS * 1024), %ecx
2:
	movl	%esi, %edi
	call	pattern
	cmpl	(%esi), %eax
	je	3f
	movl	$bad, %ebx
	call	print
3:
	addl	$4, %esi
	cmpl	$FILL_END, %esi
	jb	4f
	movl	$FILL_START, %esi
4:
	decl	%ecx
	jnz	2b

	decl	%ebp
	jnz	loop
	call	flush_tlb
	/* The number is kept in decimal, NULs in front: nothing to convert. */
	movl	$number_end, %ebx
5:
	decl	%ebx
	orb	$'0', (%ebx)
	incb	(%ebx)
	cmpb	$'9', (%ebx)
	jbe	6f
	movb	$'0', (%ebx)
	jmp	5b
6:
	movl	$line, %ebx
	call	print
	jmp	tick

/* The pattern's word for the address in %edi, in %eax: a quarter of each page is noise. */
pattern:
	movl	%edi, %eax
	testw	$0xc00, %ax
	jz	1f
	andw	$0xf000, %ax
1:
	imull	$GOLDEN, %eax
	ret

/* Changes a pseudo-random page of the dirty region. Keeps %ecx, %esi, %ebp. */
dirty_page:
	call	flush_tlb
	imull	$1664525, seed, %eax
	addl	$1013904223, %eax
	movl	%eax, seed
	movl	%eax, %edi
	shrl	$8, %edi
	andl	$(DIRTY_PAGES - 1), %edi
	shll	$12, %edi
	addl	$DIRTY_START, %edi
	pushl	%ecx
	movl	$1024, %ecx
	movl	%eax, %edx
	shrl	$26, %edx
	jz	zeros
	cmpb	$NOISE, %dl
	jbe	noise
	/* A word somewhere in the page, and the page's first one. */
	andl	$0x3ff, %eax
	incl	(%edi, %eax, 4)
	addl	%eax, (%edi)
	popl	%ecx
	ret
zeros:
	xorl	%eax, %eax
	rep stosl
	popl	%ecx
	ret
noise:
	imull	$GOLDEN, %eax
	incl	%eax
	stosl
	decl	%ecx
	jnz	noise
	popl	%ecx
	ret

flush_tlb:
	xorl	%eax, %eax
	outb	%al, $PORT_A
	movb	$PORT_A_A20, %al
	outb	%al, $PORT_A
	ret

/* Writes the string at %ebx, which ends in a newline, to the serial line, without its NULs. */
print:
	movw	$COM1_LINE_STATUS, %dx
	inb	%dx, %al
	testb	$THR_EMPTY, %al
	jz	print
	movb	(%ebx), %al
	incl	%ebx
	testb	%al, %al
	jz	print
	movw	$COM1, %dx
	outb	%al, %dx
	cmpb	$'\n', %al
	jne	print
	ret

timer_interrupt:
	iret

	.balign	4
seed:
	.long	1
bad:
	.ascii	"bad\n"
line:
	.ascii	"tick "
	.fill	10, 1, 0
number_end:
	.ascii	"\n"

	.balign	8
gdt:
	.quad	0
	.quad	0x00cf9a000000ffff
	.quad	0x00cf92000000ffff
gdt_pointer:
	.word	gdt_pointer - gdt - 1
	.long	gdt
idt_pointer:
	.word	8 * (IRQ_BASE + 1) - 1
	.long	IDT

	.org	_start + 510
	.byte	0x55, 0xaa
