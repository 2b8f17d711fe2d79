//go:build !noasm

#include "textflag.h"

// The searches of the IQ1 types, with AVX2 in both tiers. Every sum is made in the order of
// the Go form; where it tests one candidate after the other for a better one, several are
// tested at once against the best so far, and again from the first better one on.

// iq1Work, at BX.
#define SUMSX  0(BX)
#define SUMSW  384(BX)
#define LEVELQ 768(BX)  // three vectors: the values of a level, both shifts in turn
#define QX     864(BX)
#define Q2     896(BX)
#define SCALE  928(BX)
#define FIRST  932(BX)
#define SECOND 936(BX)
#define WAY    940(BX)

// BETTER: AX = the lanes of two sums qx and q2 that are better than best: q2 > 0 and qx*qx >
// best*q2. Clobbers t, u.
#define BETTER(qx, q2, best, t, u) \
	VMULPS  qx, qx, t   \
	VMULPS  q2, best, u \
	VCMPPS  $17, t, u, t \
	VXORPS  u, u, u     \
	VCMPPS  $17, q2, u, u \
	VANDPS  u, t, t     \
	VMOVMSKPS t, AX

// func iq1Cuts(c *iq1Work, n int): searchS over the prefix sums of n values, of which sums hold
// each twice, with numbers that are none after the last. FIRST, SECOND and SCALE are the
// result: i1, and i2 and the shift as 2*i2 + shift.
TEXT ·iq1Cuts(SB), NOSPLIT, $0-16
	MOVQ c+0(FP), BX
	MOVQ n+8(FP), R9
	ADDQ R9, R9
	VMOVUPS LEVELQ, Y0
	VMOVUPS 32+LEVELQ, Y1
	VMOVUPS 64+LEVELQ, Y2
	VBROADCASTSS (BX)(R9*4), Y3
	VBROADCASTSS 384(BX)(R9*4), Y4
	MOVL $0xff7fffff, AX // the lowest float
	VMOVD AX, X5
	VBROADCASTSS X5, Y5
	XORQ R10, R10 // twice i1
first:
	VBROADCASTSS (BX)(R10*4), Y6
	VBROADCASTSS 384(BX)(R10*4), Y7
	VMULPS Y0, Y6, Y8
	VMULPS Y0, Y7, Y9
	VMULPS Y0, Y9, Y9
	MOVQ R10, R11
second:
	VMOVUPS (BX)(R11*4), Y10
	VSUBPS Y6, Y10, Y13
	VSUBPS Y10, Y3, Y10
	VMULPS Y1, Y13, Y13
	VADDPS Y13, Y8, Y13
	VMULPS Y2, Y10, Y10
	VADDPS Y10, Y13, Y10 // qx
	VMOVUPS 384(BX)(R11*4), Y11
	VSUBPS Y7, Y11, Y13
	VSUBPS Y11, Y4, Y11
	VMULPS Y1, Y13, Y13
	VMULPS Y1, Y13, Y13
	VADDPS Y13, Y9, Y13
	VMULPS Y2, Y11, Y11
	VMULPS Y2, Y11, Y11
	VADDPS Y11, Y13, Y11 // q2
	BETTER(Y10, Y11, Y5, Y13, Y14)
	TESTL AX, AX
	JNE found
next:
	ADDQ $8, R11
	CMPQ R11, R9
	JLE second
	ADDQ $2, R10
	CMPQ R10, R9
	JLE first
	VZEROUPPER
	RET
found:
	VMOVUPS Y10, QX
	VMOVUPS Y11, Q2
better:
	BSFL AX, CX
	VMOVSS 864(BX)(CX*4), X13
	VDIVSS 896(BX)(CX*4), X13, X14
	VMOVSS X14, SCALE
	VMULSS X13, X14, X13
	VBROADCASTSS X13, Y5
	MOVL R10, FIRST
	LEAL (R11)(CX*1), DX
	MOVL DX, SECOND
	BETTER(Y10, Y11, Y5, Y13, Y14)
	MOVL $-2, DX
	SHLL CX, DX
	ANDL DX, AX
	JNE better
	JMP next

// iq1Vectors, at SI: the terms of a value are three vectors of eight.
#define MIDS 1536(SI)
#define ALL  2176(SI)

// LEVELTERM: the terms of a value Y0 (its weight) and Y1 at the level whose values are at
// i(R9).
#define LEVELTERM(i) \
	VMOVUPS  i(R9), Y2        \
	VMULPS   Y2, Y0, Y3       \
	VBLENDPS $0xf0, Y2, Y1, Y4 \
	VMULPS   Y4, Y3, Y3       \
	VMOVUPS  Y3, i(DI)

// func iq1Ways(c *iq1Work, t *iq1Vectors, w, x *float32, halves *uint8, table *float32): searchM
// of sixteen values in order; halves says which eight each comes from, table are the values
// by half and level. FIRST, SECOND, WAY and SCALE are the result.
TEXT ·iq1Ways(SB), NOSPLIT, $0-48
	MOVQ c+0(FP), BX
	MOVQ t+8(FP), SI
	MOVQ w+16(FP), R10
	MOVQ x+24(FP), R11
	MOVQ halves+32(FP), R12
	MOVQ table+40(FP), R13
	MOVQ SI, DI
	XORQ CX, CX
term:
	MOVBLZX (R12)(CX*1), AX
	IMULQ $96, AX
	LEAQ (R13)(AX*1), R9
	VBROADCASTSS (R10)(CX*4), Y0
	VBROADCASTSS (R11)(CX*4), Y1
	LEVELTERM(0)
	LEVELTERM(32)
	LEVELTERM(64)
	ADDQ $96, DI
	INCQ CX
	CMPQ CX, $16
	JLT term

	// All sums, for each second cut b those of the first cuts a up to it, four at a time.
	// Rows of ALL are a, of 17 vectors. Those with a beyond b are made and not looked at.
	VXORPS Y8, Y8, Y8 // the sum of the values before the first cut
	MOVQ SI, DI       // terms of b
	XORQ CX, CX       // b
	LEAQ MIDS, R10
	LEAQ ALL, R14
cut:
	VMOVUPS Y8, (R10) // the middle of a = b is empty
	LEAQ MIDS, R9
	MOVQ R14, R11
	XORQ DX, DX
four:
	VMOVUPS (R9), Y0
	VMOVUPS 32(R9), Y1
	VMOVUPS 64(R9), Y2
	VMOVUPS 96(R9), Y3
	MOVQ DI, R12
	LEAQ MIDS, R13 // the end of the terms
	CMPQ CX, $16
	JEQ tailed
	VMOVUPS 32(DI), Y4
	VADDPS Y4, Y0, Y5
	VMOVUPS Y5, (R9)
	VADDPS Y4, Y1, Y5
	VMOVUPS Y5, 32(R9)
	VADDPS Y4, Y2, Y5
	VMOVUPS Y5, 64(R9)
	VADDPS Y4, Y3, Y5
	VMOVUPS Y5, 96(R9)
tail:
	VMOVUPS 64(R12), Y4
	VADDPS Y4, Y0, Y0
	VADDPS Y4, Y1, Y1
	VADDPS Y4, Y2, Y2
	VADDPS Y4, Y3, Y3
	ADDQ $96, R12
	CMPQ R12, R13
	JLT tail
tailed:
	VMOVUPS Y0, (R11)
	VMOVUPS Y1, 544(R11)
	VMOVUPS Y2, 1088(R11)
	VMOVUPS Y3, 1632(R11)
	ADDQ $2176, R11
	ADDQ $128, R9
	ADDQ $4, DX
	CMPQ DX, CX
	JLE four
	VADDPS (DI), Y8, Y8 // of b = 16 nothing comes after
	ADDQ $96, DI
	ADDQ $32, R10
	ADDQ $32, R14
	INCQ CX
	CMPQ CX, $16
	JLE cut

	MOVL $0xff7fffff, AX
	VMOVD AX, X5
	VBROADCASTSS X5, X5
	XORQ R10, R10 // a
	LEAQ ALL, R9  // the sums of a = b
first:
	MOVQ R10, R11 // b
	MOVQ R9, DI
second:
	VMOVUPS (DI), X0
	VMOVUPS 16(DI), X1
	BETTER(X0, X1, X5, X2, X3)
	TESTL AX, AX
	JNE better
next:
	ADDQ $32, DI
	INCQ R11
	CMPQ R11, $16
	JLE second
	ADDQ $576, R9
	INCQ R10
	CMPQ R10, $16
	JLE first
	VZEROUPPER
	RET
better:
	BSFL AX, CX
	VMOVSS (DI)(CX*4), X2
	VDIVSS 16(DI)(CX*4), X2, X3
	VMOVSS X3, SCALE
	VMULSS X2, X3, X2
	VBROADCASTSS X2, X5
	MOVL R10, FIRST
	MOVL R11, SECOND
	MOVL CX, WAY
	BETTER(X0, X1, X5, X2, X3)
	MOVL $-2, DX
	SHLL CX, DX
	ANDL DX, AX
	JNE better
	JMP next
