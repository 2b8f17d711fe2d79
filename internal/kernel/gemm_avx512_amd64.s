//go:build !noasm

#include "textflag.h"

// The tiles of the AVX-512 tier; see type tile for what they compute. A row of the
// tile is two registers (one in the narrow tiles), Z8 up; a step of k reads 32
// elements of b into Z0 and Z1, and each row's element of a, spread over Z2.
//
//	DX, AX, BX   c, c + 4 rows, c + 8 rows       R8, R15   ldc, 3·ldc
//	SI, R13, R14 a, a + 4 rows, a + 8 rows       R9, R12   ai, 3·ai
//	DI, R11      b, bk       R10   ak       CX   k         all strides in bytes

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
	LEAQ (SI)(R9*8), R14;     \
	MOVBLZX 112(AX), BX;      \
	TESTL BX, BX;             \
	LEAQ (DX)(R8*4), AX;      \
	LEAQ (DX)(R8*8), BX

// Wide rows: load, step and store of a row, then of four rows from a pointer.

#define LOAD(C, LO, HI) \
	VMOVUPS C, LO;    \
	VMOVUPS 64+C, HI

#define STEP(A, LO, HI) \
	VBROADCASTSS A, Z2;         \
	VFMADD231PS  Z0, Z2, LO;    \
	VFMADD231PS  Z1, Z2, HI

#define STORE(C, LO, HI) \
	VMOVUPS LO, C;    \
	VMOVUPS HI, 64+C

#define LOAD4(P, A, B, C, D, E, F, G, H) \
	LOAD(0(P), A, B);           \
	LOAD(0(P)(R8*1), C, D);     \
	LOAD(0(P)(R8*2), E, F);     \
	LOAD(0(P)(R15*1), G, H)

#define STEP4(P, A, B, C, D, E, F, G, H) \
	STEP((P), A, B);            \
	STEP((P)(R9*1), C, D);      \
	STEP((P)(R9*2), E, F);      \
	STEP((P)(R12*1), G, H);     \
	ADDQ R10, P

#define STORE4(P, A, B, C, D, E, F, G, H) \
	STORE(0(P), A, B);          \
	STORE(0(P)(R8*1), C, D);    \
	STORE(0(P)(R8*2), E, F);    \
	STORE(0(P)(R15*1), G, H)

#define ZERO4(A, B, C, D) \
	VPXORD A, A, A; \
	VPXORD B, B, B; \
	VPXORD C, C, C; \
	VPXORD D, D, D

#define WIDE \
	VMOVUPS (DI), Z0;      \
	VMOVUPS 64(DI), Z1;    \
	ADDQ    R11, DI

#define NARROW \
	VMOVUPS (DI), Z0; \
	ADDQ    R11, DI

#define NSTEP(A, LO) \
	VBROADCASTSS A, Z2;      \
	VFMADD231PS  Z0, Z2, LO

#define NLOAD4(P, A, B, C, D) \
	VMOVUPS (P), A;         \
	VMOVUPS (P)(R8*1), B;   \
	VMOVUPS (P)(R8*2), C;   \
	VMOVUPS (P)(R15*1), D

#define NSTEP4(P, A, B, C, D) \
	NSTEP((P), A);          \
	NSTEP((P)(R9*1), B);    \
	NSTEP((P)(R9*2), C);    \
	NSTEP((P)(R12*1), D);   \
	ADDQ R10, P

#define NSTORE4(P, A, B, C, D) \
	VMOVUPS A, (P);         \
	VMOVUPS B, (P)(R8*1);   \
	VMOVUPS C, (P)(R8*2);   \
	VMOVUPS D, (P)(R15*1)

// AHEAD4 asks for the lines of 4 rows of c that the next tile will load or store to,
// while this one works, and moves on to the next 4.
#define AHEAD4(P) \
	PREFETCHT0 (P);             \
	PREFETCHT0 64(P);           \
	PREFETCHT0 (P)(R8*1);       \
	PREFETCHT0 64(P)(R8*1);     \
	PREFETCHT0 (P)(R8*2);       \
	PREFETCHT0 64(P)(R8*2);     \
	PREFETCHT0 (P)(R15*1);      \
	PREFETCHT0 64(P)(R15*1);    \
	LEAQ (P)(R8*4), P

// func tile12x32(t *tile)
//
// BX is used up before the loop and made again after it.
TEXT ·tile12x32(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	LOAD4(DX, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	LOAD4(AX, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	LOAD4(BX, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31)
	JMP   start

zero:
	ZERO4(Z8, Z9, Z10, Z11)
	ZERO4(Z12, Z13, Z14, Z15)
	ZERO4(Z16, Z17, Z18, Z19)
	ZERO4(Z20, Z21, Z22, Z23)
	ZERO4(Z24, Z25, Z26, Z27)
	ZERO4(Z28, Z29, Z30, Z31)

start:
	LEAQ (BX)(R8*4), BX
	AHEAD4(BX)
	AHEAD4(BX)
	AHEAD4(BX)
	PCALIGN $32

loop:
	WIDE
	STEP4(SI, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	STEP4(R13, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	STEP4(R14, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31)
	DECQ  CX
	JNZ   loop
	STORE4(DX, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	STORE4(AX, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	LEAQ  (DX)(R8*8), BX
	STORE4(BX, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31)
	VZEROUPPER
	RET

// func tile8x32(t *tile)
TEXT ·tile8x32(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	LOAD4(DX, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	LOAD4(AX, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	JMP   loop

zero:
	ZERO4(Z8, Z9, Z10, Z11)
	ZERO4(Z12, Z13, Z14, Z15)
	ZERO4(Z16, Z17, Z18, Z19)
	ZERO4(Z20, Z21, Z22, Z23)
	PCALIGN $32

loop:
	WIDE
	STEP4(SI, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	STEP4(R13, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	DECQ  CX
	JNZ   loop
	STORE4(DX, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	STORE4(AX, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	VZEROUPPER
	RET

// func tile4x32(t *tile)
TEXT ·tile4x32(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	LOAD4(DX, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	JMP   loop

zero:
	ZERO4(Z8, Z9, Z10, Z11)
	ZERO4(Z12, Z13, Z14, Z15)

loop:
	WIDE
	STEP4(SI, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	DECQ  CX
	JNZ   loop
	STORE4(DX, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	VZEROUPPER
	RET

// func tile2x32(t *tile)
TEXT ·tile2x32(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	LOAD(0(DX), Z8, Z9)
	LOAD(0(DX)(R8*1), Z10, Z11)
	JMP   loop

zero:
	ZERO4(Z8, Z9, Z10, Z11)

loop:
	WIDE
	STEP((SI), Z8, Z9)
	STEP((SI)(R9*1), Z10, Z11)
	ADDQ  R10, SI
	DECQ  CX
	JNZ   loop
	STORE(0(DX), Z8, Z9)
	STORE(0(DX)(R8*1), Z10, Z11)
	VZEROUPPER
	RET

// func tile1x32(t *tile)
TEXT ·tile1x32(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	LOAD(0(DX), Z8, Z9)
	JMP   loop

zero:
	VPXORD Z8, Z8, Z8
	VPXORD Z9, Z9, Z9

loop:
	VBROADCASTSS (SI), Z2
	VFMADD231PS  (DI), Z2, Z8
	VFMADD231PS  64(DI), Z2, Z9
	ADDQ  R10, SI
	ADDQ  R11, DI
	DECQ  CX
	JNZ   loop
	STORE(0(DX), Z8, Z9)
	VZEROUPPER
	RET

// func tile12x16(t *tile)
TEXT ·tile12x16(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	NLOAD4(DX, Z8, Z9, Z10, Z11)
	NLOAD4(AX, Z12, Z13, Z14, Z15)
	NLOAD4(BX, Z16, Z17, Z18, Z19)
	JMP   loop

zero:
	ZERO4(Z8, Z9, Z10, Z11)
	ZERO4(Z12, Z13, Z14, Z15)
	ZERO4(Z16, Z17, Z18, Z19)
	PCALIGN $32

loop:
	NARROW
	NSTEP4(SI, Z8, Z9, Z10, Z11)
	NSTEP4(R13, Z12, Z13, Z14, Z15)
	NSTEP4(R14, Z16, Z17, Z18, Z19)
	DECQ  CX
	JNZ   loop
	NSTORE4(DX, Z8, Z9, Z10, Z11)
	NSTORE4(AX, Z12, Z13, Z14, Z15)
	NSTORE4(BX, Z16, Z17, Z18, Z19)
	VZEROUPPER
	RET

// func tile4x16(t *tile)
TEXT ·tile4x16(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	NLOAD4(DX, Z8, Z9, Z10, Z11)
	JMP   loop

zero:
	ZERO4(Z8, Z9, Z10, Z11)

loop:
	NARROW
	NSTEP4(SI, Z8, Z9, Z10, Z11)
	DECQ  CX
	JNZ   loop
	NSTORE4(DX, Z8, Z9, Z10, Z11)
	VZEROUPPER
	RET

// func tile1x16(t *tile)
TEXT ·tile1x16(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	VMOVUPS (DX), Z8
	JMP   loop

zero:
	VPXORD Z8, Z8, Z8

loop:
	NARROW
	NSTEP((SI), Z8)
	ADDQ  R10, SI
	DECQ  CX
	JNZ   loop
	VMOVUPS Z8, (DX)
	VZEROUPPER
	RET

// func turn16x32(dst, src []float32, stride, quads int)
//
// Four columns at a time: within each lane of 128 bits, 4 by 4 elements turn.
TEXT ·turn16x32(SB), NOSPLIT, $0-64
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), SI
	MOVQ stride+48(FP), R9
	MOVQ quads+56(FP), CX
	SHLQ $2, R9
	LEAQ (R9)(R9*2), R12
	LEAQ (SI)(R9*4), R13
	LEAQ (SI)(R9*8), R14
	LEAQ (R13)(R9*8), R15

loop:
	VMOVUPS      (SI), X0
	VMOVUPS      (SI)(R9*1), X1
	VMOVUPS      (SI)(R9*2), X2
	VMOVUPS      (SI)(R12*1), X3
	VINSERTF32X4 $1, (R13), Z0, Z0
	VINSERTF32X4 $1, (R13)(R9*1), Z1, Z1
	VINSERTF32X4 $1, (R13)(R9*2), Z2, Z2
	VINSERTF32X4 $1, (R13)(R12*1), Z3, Z3
	VINSERTF32X4 $2, (R14), Z0, Z0
	VINSERTF32X4 $2, (R14)(R9*1), Z1, Z1
	VINSERTF32X4 $2, (R14)(R9*2), Z2, Z2
	VINSERTF32X4 $2, (R14)(R12*1), Z3, Z3
	VINSERTF32X4 $3, (R15), Z0, Z0
	VINSERTF32X4 $3, (R15)(R9*1), Z1, Z1
	VINSERTF32X4 $3, (R15)(R9*2), Z2, Z2
	VINSERTF32X4 $3, (R15)(R12*1), Z3, Z3
	VUNPCKLPS    Z1, Z0, Z4
	VUNPCKHPS    Z1, Z0, Z5
	VUNPCKLPS    Z3, Z2, Z6
	VUNPCKHPS    Z3, Z2, Z7
	VUNPCKLPD    Z6, Z4, Z0
	VUNPCKHPD    Z6, Z4, Z1
	VUNPCKLPD    Z7, Z5, Z2
	VUNPCKHPD    Z7, Z5, Z3
	VMOVUPS      Z0, (DI)
	VMOVUPS      Z1, 128(DI)
	VMOVUPS      Z2, 256(DI)
	VMOVUPS      Z3, 384(DI)
	ADDQ         $512, DI
	ADDQ         $16, SI
	ADDQ         $16, R13
	ADDQ         $16, R14
	ADDQ         $16, R15
	DECQ         CX
	JNZ          loop
	VZEROUPPER
	RET

// func turn12(dst, src []float32, stride, quads int)
//
// As turn16x32, for 12 rows whose transpose has no gaps.
TEXT ·turn12(SB), NOSPLIT, $0-64
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), SI
	MOVQ stride+48(FP), R9
	MOVQ quads+56(FP), CX
	SHLQ $2, R9
	LEAQ (R9)(R9*2), R12
	LEAQ (SI)(R9*4), R13
	LEAQ (SI)(R9*8), R14
	MOVL $0xFFF, AX
	KMOVW AX, K1

loop:
	VMOVUPS      (SI), X0
	VMOVUPS      (SI)(R9*1), X1
	VMOVUPS      (SI)(R9*2), X2
	VMOVUPS      (SI)(R12*1), X3
	VINSERTF32X4 $1, (R13), Z0, Z0
	VINSERTF32X4 $1, (R13)(R9*1), Z1, Z1
	VINSERTF32X4 $1, (R13)(R9*2), Z2, Z2
	VINSERTF32X4 $1, (R13)(R12*1), Z3, Z3
	VINSERTF32X4 $2, (R14), Z0, Z0
	VINSERTF32X4 $2, (R14)(R9*1), Z1, Z1
	VINSERTF32X4 $2, (R14)(R9*2), Z2, Z2
	VINSERTF32X4 $2, (R14)(R12*1), Z3, Z3
	VUNPCKLPS    Z1, Z0, Z4
	VUNPCKHPS    Z1, Z0, Z5
	VUNPCKLPS    Z3, Z2, Z6
	VUNPCKHPS    Z3, Z2, Z7
	VUNPCKLPD    Z6, Z4, Z0
	VUNPCKHPD    Z6, Z4, Z1
	VUNPCKLPD    Z7, Z5, Z2
	VUNPCKHPD    Z7, Z5, Z3
	VMOVUPS      Z0, K1, (DI)
	VMOVUPS      Z1, K1, 48(DI)
	VMOVUPS      Z2, K1, 96(DI)
	VMOVUPS      Z3, K1, 144(DI)
	ADDQ         $192, DI
	ADDQ         $16, SI
	ADDQ         $16, R13
	ADDQ         $16, R14
	DECQ         CX
	JNZ          loop
	VZEROUPPER
	RET

// func copy12(dst, src []float32, stride, k int)
TEXT ·copy12(SB), NOSPLIT, $0-64
	MOVQ  dst_base+0(FP), DI
	MOVQ  src_base+24(FP), SI
	MOVQ  stride+48(FP), R9
	MOVQ  k+56(FP), CX
	SHLQ  $2, R9
	MOVL  $0xFFF, AX
	KMOVW AX, K1

loop:
	VMOVUPS.Z (SI), K1, Z0
	VMOVUPS Z0, K1, (DI)
	ADDQ    $48, DI
	ADDQ    R9, SI
	DECQ    CX
	JNZ     loop
	VZEROUPPER
	RET

// func copy32(dst, src []float32, stride, k int)
TEXT ·copy32(SB), NOSPLIT, $0-64
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), SI
	MOVQ stride+48(FP), R9
	MOVQ k+56(FP), CX
	SHLQ $2, R9

loop:
	VMOVUPS (SI), Z0
	VMOVUPS 64(SI), Z1
	VMOVUPS Z0, (DI)
	VMOVUPS Z1, 64(DI)
	ADDQ    $128, DI
	ADDQ    R9, SI
	DECQ    CX
	JNZ     loop
	VZEROUPPER
	RET

// TURN4 reads 4 columns of 16 rows, those of P, Q, S and T and 3 more below each, and
// leaves a column in each of A, B, C and D; E to H are used.
#define TURN4(P, Q, S, T, XA, XB, XC, XD, A, B, C, D, E, F, G, H) \
	VMOVUPS      (P), XA;                    \
	VMOVUPS      (P)(R9*1), XB;              \
	VMOVUPS      (P)(R9*2), XC;              \
	VMOVUPS      (P)(R12*1), XD;             \
	VINSERTF32X4 $1, (Q), A, A;              \
	VINSERTF32X4 $1, (Q)(R9*1), B, B;        \
	VINSERTF32X4 $1, (Q)(R9*2), C, C;        \
	VINSERTF32X4 $1, (Q)(R12*1), D, D;       \
	VINSERTF32X4 $2, (S), A, A;              \
	VINSERTF32X4 $2, (S)(R9*1), B, B;        \
	VINSERTF32X4 $2, (S)(R9*2), C, C;        \
	VINSERTF32X4 $2, (S)(R12*1), D, D;       \
	VINSERTF32X4 $3, (T), A, A;              \
	VINSERTF32X4 $3, (T)(R9*1), B, B;        \
	VINSERTF32X4 $3, (T)(R9*2), C, C;        \
	VINSERTF32X4 $3, (T)(R12*1), D, D;       \
	VUNPCKLPS    B, A, E;                    \
	VUNPCKHPS    B, A, F;                    \
	VUNPCKLPS    D, C, G;                    \
	VUNPCKHPS    D, C, H;                    \
	VUNPCKLPD    G, E, A;                    \
	VUNPCKHPD    G, E, B;                    \
	VUNPCKLPD    H, F, C;                    \
	VUNPCKHPD    H, F, D

// func dots32(y, x, rows []float32, stride, quads int, load bool)
TEXT ·dots32(SB), NOSPLIT, $0-89
	MOVQ    y_base+0(FP), AX
	MOVQ    x_base+24(FP), DI
	MOVQ    rows_base+48(FP), SI
	MOVQ    stride+72(FP), R9
	MOVQ    quads+80(FP), CX
	MOVBLZX load+88(FP), BX
	VPXORD  Z16, Z16, Z16
	VPXORD  Z17, Z17, Z17
	TESTL   BX, BX
	JZ      zero
	VMOVUPS (AX), Z16
	VMOVUPS 64(AX), Z17

zero:
	SHLQ $2, R9
	LEAQ (R9)(R9*2), R12
	LEAQ (SI)(R9*4), R13
	LEAQ (R13)(R9*4), R14
	LEAQ (R14)(R9*4), R15
	LEAQ (R15)(R9*4), AX
	LEAQ (AX)(R9*4), BX
	LEAQ (BX)(R9*4), DX
	LEAQ (DX)(R9*4), R8

loop:
	TURN4(SI, R13, R14, R15, X0, X1, X2, X3, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7)
	TURN4(AX, BX, DX, R8, X8, X9, X10, X11, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	VFMADD231PS.BCST (DI), Z0, Z16
	VFMADD231PS.BCST (DI), Z8, Z17
	VFMADD231PS.BCST 4(DI), Z1, Z16
	VFMADD231PS.BCST 4(DI), Z9, Z17
	VFMADD231PS.BCST 8(DI), Z2, Z16
	VFMADD231PS.BCST 8(DI), Z10, Z17
	VFMADD231PS.BCST 12(DI), Z3, Z16
	VFMADD231PS.BCST 12(DI), Z11, Z17
	ADDQ    $16, SI
	ADDQ    $16, R13
	ADDQ    $16, R14
	ADDQ    $16, R15
	ADDQ    $16, AX
	ADDQ    $16, BX
	ADDQ    $16, DX
	ADDQ    $16, R8
	ADDQ    $16, DI
	DECQ    CX
	JNZ     loop
	MOVQ    y_base+0(FP), AX
	VMOVUPS Z16, (AX)
	VMOVUPS Z17, 64(AX)
	VZEROUPPER
	RET
