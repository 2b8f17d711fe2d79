//go:build !noasm

#include "textflag.h"

// The tiles of the AVX2 tier; see type tile for what they compute. A row of the tile
// is two registers, Y4 up; a step of k reads 16 elements of b into Y0 and Y1, and
// each row's element of a, spread over Y2.
//
//	DX, AX   c, c + 4 rows       R8, R15   ldc, 3·ldc
//	SI, R13  a, a + 4 rows       R9, R12   ai, 3·ai
//	DI, R11  b, bk       R10   ak       CX   k         all strides in bytes

#define ARGS \
	MOVQ t+0(FP), AX;         \
	MOVQ 0(AX), DX;           \
	MOVQ 24(AX), SI;          \
	MOVQ 48(AX), DI;          \
	MOVQ 72(AX), R8;          \
	MOVQ 80(AX), R9;          \
	MOVQ 88(AX), R10;         \
	MOVQ 96(AX), R11;         \
	MOVQ 104(AX), CX;         \
	SHLQ $2, R8;              \
	SHLQ $2, R9;              \
	SHLQ $2, R10;             \
	SHLQ $2, R11;             \
	LEAQ (R8)(R8*2), R15;     \
	LEAQ (R9)(R9*2), R12;     \
	LEAQ (SI)(R9*4), R13;     \
	MOVBLZX 112(AX), BX;      \
	TESTL BX, BX;             \
	LEAQ (DX)(R8*4), AX

#define LOAD(C, LO, HI) \
	VMOVUPS C, LO;    \
	VMOVUPS 32+C, HI

#define STORE(C, LO, HI) \
	VMOVUPS LO, C;    \
	VMOVUPS HI, 32+C

#define STEP(A, LO, HI) \
	VBROADCASTSS A, Y2;         \
	VFMADD231PS  Y0, Y2, LO;    \
	VFMADD231PS  Y1, Y2, HI

#define ZERO2(A, B) \
	VXORPS A, A, A; \
	VXORPS B, B, B

// func ytile6x16(t *tile)
TEXT ·ytile6x16(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	LOAD(0(DX), Y4, Y5)
	LOAD(0(DX)(R8*1), Y6, Y7)
	LOAD(0(DX)(R8*2), Y8, Y9)
	LOAD(0(DX)(R15*1), Y10, Y11)
	LOAD(0(AX), Y12, Y13)
	LOAD(0(AX)(R8*1), Y14, Y15)
	JMP   loop

zero:
	ZERO2(Y4, Y5)
	ZERO2(Y6, Y7)
	ZERO2(Y8, Y9)
	ZERO2(Y10, Y11)
	ZERO2(Y12, Y13)
	ZERO2(Y14, Y15)
	PCALIGN $32

loop:
	VMOVUPS (DI), Y0
	VMOVUPS 32(DI), Y1
	ADDQ  R11, DI
	STEP((SI), Y4, Y5)
	STEP((SI)(R9*1), Y6, Y7)
	STEP((SI)(R9*2), Y8, Y9)
	STEP((SI)(R12*1), Y10, Y11)
	STEP((R13), Y12, Y13)
	STEP((R13)(R9*1), Y14, Y15)
	ADDQ  R10, SI
	ADDQ  R10, R13
	DECQ  CX
	JNZ   loop
	STORE(0(DX), Y4, Y5)
	STORE(0(DX)(R8*1), Y6, Y7)
	STORE(0(DX)(R8*2), Y8, Y9)
	STORE(0(DX)(R15*1), Y10, Y11)
	STORE(0(AX), Y12, Y13)
	STORE(0(AX)(R8*1), Y14, Y15)
	VZEROUPPER
	RET

// func ytile2x16(t *tile)
TEXT ·ytile2x16(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	LOAD(0(DX), Y4, Y5)
	LOAD(0(DX)(R8*1), Y6, Y7)
	JMP   loop

zero:
	ZERO2(Y4, Y5)
	ZERO2(Y6, Y7)

loop:
	VMOVUPS (DI), Y0
	VMOVUPS 32(DI), Y1
	ADDQ  R11, DI
	STEP((SI), Y4, Y5)
	STEP((SI)(R9*1), Y6, Y7)
	ADDQ  R10, SI
	DECQ  CX
	JNZ   loop
	STORE(0(DX), Y4, Y5)
	STORE(0(DX)(R8*1), Y6, Y7)
	VZEROUPPER
	RET

// func ytile1x16(t *tile)
//
// One row.
TEXT ·ytile1x16(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	LOAD(0(DX), Y4, Y5)
	JMP   loop

zero:
	ZERO2(Y4, Y5)

loop:
	VBROADCASTSS (SI), Y2
	VFMADD231PS  (DI), Y2, Y4
	VFMADD231PS  32(DI), Y2, Y5
	ADDQ  R10, SI
	ADDQ  R11, DI
	DECQ  CX
	JNZ   loop
	STORE(0(DX), Y4, Y5)
	VZEROUPPER
	RET

// func turn8x16(dst, src []float32, stride, quads int)
//
// Four columns at a time: within each lane of 128 bits, 4 by 4 elements turn.
TEXT ·turn8x16(SB), NOSPLIT, $0-64
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), SI
	MOVQ stride+48(FP), R9
	MOVQ quads+56(FP), CX
	SHLQ $2, R9
	LEAQ (R9)(R9*2), R12
	LEAQ (SI)(R9*4), R13

loop:
	VMOVUPS     (SI), X0
	VMOVUPS     (SI)(R9*1), X1
	VMOVUPS     (SI)(R9*2), X2
	VMOVUPS     (SI)(R12*1), X3
	VINSERTF128 $1, (R13), Y0, Y0
	VINSERTF128 $1, (R13)(R9*1), Y1, Y1
	VINSERTF128 $1, (R13)(R9*2), Y2, Y2
	VINSERTF128 $1, (R13)(R12*1), Y3, Y3
	VUNPCKLPS   Y1, Y0, Y4
	VUNPCKHPS   Y1, Y0, Y5
	VUNPCKLPS   Y3, Y2, Y6
	VUNPCKHPS   Y3, Y2, Y7
	VUNPCKLPD   Y6, Y4, Y0
	VUNPCKHPD   Y6, Y4, Y1
	VUNPCKLPD   Y7, Y5, Y2
	VUNPCKHPD   Y7, Y5, Y3
	VMOVUPS     Y0, (DI)
	VMOVUPS     Y1, 64(DI)
	VMOVUPS     Y2, 128(DI)
	VMOVUPS     Y3, 192(DI)
	ADDQ        $256, DI
	ADDQ        $16, SI
	ADDQ        $16, R13
	DECQ        CX
	JNZ         loop
	VZEROUPPER
	RET

// func turn6(dst, src []float32, stride, quads int)
//
// As turn8x16, for 6 rows whose transpose has no gaps.
TEXT ·turn6(SB), NOSPLIT, $0-64
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), SI
	MOVQ stride+48(FP), R9
	MOVQ quads+56(FP), CX
	SHLQ $2, R9
	LEAQ (R9)(R9*2), R12
	LEAQ (SI)(R9*4), R13

loop:
	VMOVUPS     (SI), X0
	VMOVUPS     (SI)(R9*1), X1
	VMOVUPS     (SI)(R9*2), X2
	VMOVUPS     (SI)(R12*1), X3
	VINSERTF128 $1, (R13), Y0, Y0
	VINSERTF128 $1, (R13)(R9*1), Y1, Y1
	VUNPCKLPS   Y1, Y0, Y4
	VUNPCKHPS   Y1, Y0, Y5
	VUNPCKLPS   Y3, Y2, Y6
	VUNPCKHPS   Y3, Y2, Y7
	VUNPCKLPD   Y6, Y4, Y0
	VUNPCKHPD   Y6, Y4, Y1
	VUNPCKLPD   Y7, Y5, Y2
	VUNPCKHPD   Y7, Y5, Y3
	VMOVUPS     X0, (DI)
	VEXTRACTF128 $1, Y0, X4
	VMOVLPS     X4, 16(DI)
	VMOVUPS     X1, 24(DI)
	VEXTRACTF128 $1, Y1, X4
	VMOVLPS     X4, 40(DI)
	VMOVUPS     X2, 48(DI)
	VEXTRACTF128 $1, Y2, X4
	VMOVLPS     X4, 64(DI)
	VMOVUPS     X3, 72(DI)
	VEXTRACTF128 $1, Y3, X4
	VMOVLPS     X4, 88(DI)
	ADDQ        $96, DI
	ADDQ        $16, SI
	ADDQ        $16, R13
	DECQ        CX
	JNZ         loop
	VZEROUPPER
	RET

// func copy6(dst, src []float32, stride, k int)
TEXT ·copy6(SB), NOSPLIT, $0-64
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), SI
	MOVQ stride+48(FP), R9
	MOVQ k+56(FP), CX
	SHLQ $2, R9

loop:
	VMOVUPS (SI), X0
	MOVQ    16(SI), AX
	VMOVUPS X0, (DI)
	MOVQ    AX, 16(DI)
	ADDQ    $24, DI
	ADDQ    R9, SI
	DECQ    CX
	JNZ     loop
	RET

// func copy16(dst, src []float32, stride, k int)
TEXT ·copy16(SB), NOSPLIT, $0-64
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), SI
	MOVQ stride+48(FP), R9
	MOVQ k+56(FP), CX
	SHLQ $2, R9

loop:
	VMOVUPS (SI), Y0
	VMOVUPS 32(SI), Y1
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, 32(DI)
	ADDQ    $64, DI
	ADDQ    R9, SI
	DECQ    CX
	JNZ     loop
	VZEROUPPER
	RET

// TURN4 reads 4 columns of 8 rows, those of P and Q and 3 more below each, and leaves a
// column in each of A, B, C and D; E to H are used.
#define TURN4(P, Q, XA, XB, XC, XD, A, B, C, D, E, F, G, H) \
	VMOVUPS     (P), XA;               \
	VMOVUPS     (P)(R9*1), XB;         \
	VMOVUPS     (P)(R9*2), XC;         \
	VMOVUPS     (P)(R12*1), XD;        \
	VINSERTF128 $1, (Q), A, A;         \
	VINSERTF128 $1, (Q)(R9*1), B, B;   \
	VINSERTF128 $1, (Q)(R9*2), C, C;   \
	VINSERTF128 $1, (Q)(R12*1), D, D;  \
	VUNPCKLPS   B, A, E;               \
	VUNPCKHPS   B, A, F;               \
	VUNPCKLPS   D, C, G;               \
	VUNPCKHPS   D, C, H;               \
	VUNPCKLPD   G, E, A;               \
	VUNPCKHPD   G, E, B;               \
	VUNPCKLPD   H, F, C;               \
	VUNPCKHPD   H, F, D

// STEP2 adds an element of x times a column of 16 rows.
#define STEP2(X, LO, HI) \
	VBROADCASTSS X, Y12;          \
	VFMADD231PS  LO, Y12, Y14;    \
	VFMADD231PS  HI, Y12, Y15

// func dots16(y, x, rows []float32, stride, quads int, load bool)
TEXT ·dots16(SB), NOSPLIT, $0-89
	MOVQ    y_base+0(FP), AX
	MOVQ    x_base+24(FP), DI
	MOVQ    rows_base+48(FP), SI
	MOVQ    stride+72(FP), R9
	MOVQ    quads+80(FP), CX
	MOVBLZX load+88(FP), BX
	VXORPS  Y14, Y14, Y14
	VXORPS  Y15, Y15, Y15
	TESTL   BX, BX
	JZ      zero
	VMOVUPS (AX), Y14
	VMOVUPS 32(AX), Y15

zero:
	SHLQ $2, R9
	LEAQ (R9)(R9*2), R12
	LEAQ (SI)(R9*4), R13
	LEAQ (R13)(R9*4), R14
	LEAQ (R14)(R9*4), R15

loop:
	TURN4(SI, R13, X0, X1, X2, X3, Y0, Y1, Y2, Y3, Y8, Y9, Y10, Y11)
	TURN4(R14, R15, X4, X5, X6, X7, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11)
	STEP2((DI), Y0, Y4)
	STEP2(4(DI), Y1, Y5)
	STEP2(8(DI), Y2, Y6)
	STEP2(12(DI), Y3, Y7)
	ADDQ $16, SI
	ADDQ $16, R13
	ADDQ $16, R14
	ADDQ $16, R15
	ADDQ $16, DI
	DECQ CX
	JNZ  loop
	VMOVUPS Y14, (AX)
	VMOVUPS Y15, 32(AX)
	VZEROUPPER
	RET
