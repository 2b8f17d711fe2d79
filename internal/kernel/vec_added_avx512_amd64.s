//go:build !noasm

#include "textflag.h"

// One pass of AddF16 and AddBF16: n > 0 elements, a multiple of 16. s is an addedSums. Sums
// are in Z16 to Z23, two registers each; the products are exact, so that fusing them with the sums
// changes nothing.

#define ARGUMENTS \
	MOVQ    dst+0(FP), DI \
	MOVQ    src+8(FP), SI \
	MOVQ    d+16(FP), BX  \
	MOVQ    s+24(FP), DX  \
	MOVQ    n+32(FP), CX  \
	ADDQ    CX, CX        \
	XORQ    AX, AX        \
	XORQ    R10, R10      \
	VMOVUPS 0(DX), Z16    \
	VMOVUPS 64(DX), Z17   \
	VMOVUPS 128(DX), Z18  \
	VMOVUPS 192(DX), Z19  \
	VMOVUPS 256(DX), Z20  \
	VMOVUPS 320(DX), Z21  \
	VMOVUPS 384(DX), Z22  \
	VMOVUPS 448(DX), Z23

// SUMS takes w from Z0, what is stored from Y3, and its value from Z4.
#define SUMS \
	VCVTPS2PD     (BX)(AX*2), Z7           \ // d
	VCVTPS2PD     32(BX)(AX*2), Z8         \
	VSUBPS        Z0, Z4, Z4               \ // r
	VEXTRACTF32X8 $1, Z0, Y6               \
	VCVTPS2PD     Y0, Z5                   \ // w
	VCVTPS2PD     Y6, Z6                   \
	VEXTRACTF32X8 $1, Z4, Y10              \
	VCVTPS2PD     Y4, Z9                   \
	VCVTPS2PD     Y10, Z10                 \
	VPCMPW        $4, (SI)(AX*1), Y3, K1   \
	KMOVW         K1, R9                   \
	POPCNTL       R9, R9                   \
	ADDQ          R9, R10                  \
	VMOVUPS       Y3, (DI)(AX*1)           \
	VFMADD231PD   Z7, Z9, Z16              \
	VFMADD231PD   Z8, Z10, Z17             \
	VFMADD231PD   Z7, Z7, Z18              \
	VFMADD231PD   Z8, Z8, Z19              \
	VFMADD231PD   Z9, Z9, Z20              \
	VFMADD231PD   Z10, Z10, Z21            \
	VFMADD231PD   Z5, Z5, Z22              \
	VFMADD231PD   Z6, Z6, Z23              \
	ADDQ          $32, AX

#define RESULTS \
	VMOVUPS Z16, 0(DX)    \
	VMOVUPS Z17, 64(DX)   \
	VMOVUPS Z18, 128(DX)  \
	VMOVUPS Z19, 192(DX)  \
	VMOVUPS Z20, 256(DX)  \
	VMOVUPS Z21, 320(DX)  \
	VMOVUPS Z22, 384(DX)  \
	VMOVUPS Z23, 448(DX)  \
	ADDQ    R10, 512(DX)  \
	VZEROUPPER            \
	RET

// func addF16AVX512(dst, src *byte, d *float32, s *addedSums, n int)
TEXT ·addF16AVX512(SB), NOSPLIT, $0-40
	ARGUMENTS
loop:
	VCVTPH2PS (SI)(AX*1), Z0
	VADDPS    (BX)(AX*2), Z0, Z2
	VCVTPS2PH $0, Z2, Y3
	VCVTPH2PS Y3, Z4
	SUMS
	CMPQ      AX, CX
	JLT       loop
	RESULTS

// func addBF16AVX512(dst, src *byte, d *float32, s *addedSums, n int)
TEXT ·addBF16AVX512(SB), NOSPLIT, $0-40
	ARGUMENTS
	LEAQ         ·vecConst(SB), R8
	VMOVUPS      1728(R8), Z11 // infinity
	VMOVUPS      1600(R8), Z12 // 0x7fff
	VMOVUPS      1536(R8), Z13 // 1
	VMOVUPS      1792(R8), Z14 // all but the sign
	VMOVUPS      1664(R8), Z15 // 0x40
loop:
	VPMOVZXWD (SI)(AX*1), Z0
	VPSLLD    $16, Z0, Z0
	VADDPS    (BX)(AX*2), Z0, Z2
	VPSRLD    $16, Z2, Z1
	VPORD     Z15, Z1, Z5     // what a NaN becomes
	VPANDD    Z13, Z1, Z1
	VPADDD    Z12, Z1, Z1
	VPADDD    Z2, Z1, Z1
	VPSRLD    $16, Z1, Z1
	VPANDD    Z14, Z2, Z2
	VPCMPD    $6, Z11, Z2, K2 // more than infinity: a NaN
	VMOVAPS   Z5, K2, Z1
	VPMOVDW   Z1, Y3
	VPSLLD    $16, Z1, Z4
	SUMS
	CMPQ      AX, CX
	JLT       loop
	RESULTS
