//go:build !noasm

#include "textflag.h"

// Packing for the AVX-512 tier, and the product of a single row; see type tiles.

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
	TURN4(SI, R13, R14, R15, X0, X1, X2, X3, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7)
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
