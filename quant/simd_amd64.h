// The vector decoders of both tiers. simd_avx2_amd64.s and simd_avx512_amd64.s
// include this text after naming the functions and the vectors V0 to V7 that the
// elements go through; WIDE is defined for AVX-512. Codes are unpacked as bytes, 16
// or 32 at a time and with AVX2 in both tiers; only PUT and its kin differ.
//
// A function without other arguments named is func(dst *float32, src *byte, blocks
// int), blocks > 0. It reads and writes whole blocks and nothing else, and does the multiplications and
// additions of the decoder in Go in the same order, none fused.
//
// SI is the block, DI its elements, CX the blocks left, R8 the constants.

// Constants, in the order of simdConst.
#define NIBBLE  0(R8)   // bytes of 0x0f
#define B8      32(R8)  // bytes of 8
#define B16     64(R8)  // bytes of 16
#define B32     96(R8)  // bytes of 32
#define B3      128(R8) // bytes of 3
#define B4      160(R8) // bytes of 4
#define B48     192(R8) // bytes of 0x30
#define B63     224(R8) // bytes of 0x3f
#define B1      256(R8) // bytes of 1
#define BITS    288(R8) // byte i is 1<<(i%8)
#define SPREAD  320(R8) // byte i is i/8
#define SHIFT04 352(R8) // words of 32 bits: 0, 4, 0, 4
#define SHIFT2  384(R8) // words of 32 bits: 0, 2, 4, 6
#define LEVELS  416(R8) // the sixteen levels of IQ4, in both lanes
#define E2M1    448(R8) // those of E2M1, doubled
#define EIGHT4  480(R8) // words of 32 bits: 0, 4, 8, … 28
#define EIGHT2  512(R8) // words of 32 bits: 0, 2, 4, … 14
#define WORD15  544(R8) // words of 15
#define WORD3   576(R8) // words of 3
#define WORD32  608(R8) // words of 32

#define ARGS \
	MOVQ dst+0(FP), DI    \
	MOVQ src+8(FP), SI    \
	MOVQ blocks+16(FP), CX \
	LEAQ ·simdConst(SB), R8

#define NEXT(bytes, elements, loop) \
	ADDQ $bytes, SI        \
	ADDQ $(4*elements), DI \
	DECQ CX                \
	JNE  loop              \
	VZEROUPPER             \
	RET

#ifdef WIDE
// HALF: v = the half at off, in every lane. Clobbers V7.
#define HALF(off, v) \
	VPBROADCASTW off(SI), Y7 \
	VCVTPH2PS    Y7, v

// PUT: off(DI) = 16 signed bytes of x, times s. Clobbers x, V0, V1.
#define PUT(x, s, off) \
	VPMOVSXBD x, V0      \
	VCVTDQ2PS V0, V0     \
	VMULPS    s, V0, V0  \
	VMOVUPS   V0, off(DI)

// PUTADD: the same plus m; PUTSUB: minus m.
#define PUTADD(x, s, m, off) \
	VPMOVSXBD x, V0      \
	VCVTDQ2PS V0, V0     \
	VMULPS    s, V0, V0  \
	VADDPS    m, V0, V0  \
	VMOVUPS   V0, off(DI)

#define PUTSUB(x, s, m, off) \
	VPMOVSXBD x, V0      \
	VCVTDQ2PS V0, V0     \
	VMULPS    s, V0, V0  \
	VSUBPS    m, V0, V0  \
	VMOVUPS   V0, off(DI)
#else
#define HALF(off, v) \
	VPBROADCASTW off(SI), X7 \
	VCVTPH2PS    X7, v

#define PUT(x, s, off) \
	VPMOVSXBD x, V0          \
	VPSRLDQ   $8, x, x       \
	VPMOVSXBD x, V1          \
	VCVTDQ2PS V0, V0         \
	VCVTDQ2PS V1, V1         \
	VMULPS    s, V0, V0      \
	VMULPS    s, V1, V1      \
	VMOVUPS   V0, off(DI)    \
	VMOVUPS   V1, off+32(DI)

#define PUTADD(x, s, m, off) \
	VPMOVSXBD x, V0          \
	VPSRLDQ   $8, x, x       \
	VPMOVSXBD x, V1          \
	VCVTDQ2PS V0, V0         \
	VCVTDQ2PS V1, V1         \
	VMULPS    s, V0, V0      \
	VMULPS    s, V1, V1      \
	VADDPS    m, V0, V0      \
	VADDPS    m, V1, V1      \
	VMOVUPS   V0, off(DI)    \
	VMOVUPS   V1, off+32(DI)

#define PUTSUB(x, s, m, off) \
	VPMOVSXBD x, V0          \
	VPSRLDQ   $8, x, x       \
	VPMOVSXBD x, V1          \
	VCVTDQ2PS V0, V0         \
	VCVTDQ2PS V1, V1         \
	VMULPS    s, V0, V0      \
	VMULPS    s, V1, V1      \
	VSUBPS    m, V0, V0      \
	VSUBPS    m, V1, V1      \
	VMOVUPS   V0, off(DI)    \
	VMOVUPS   V1, off+32(DI)
#endif

// NIBBLES: Y8 = the low nibbles of 16 bytes at off in its lower, the high ones in its
// upper lane. Clobbers Y9.
#define NIBBLES(off) \
	VMOVDQU     off(SI), X8    \
	VPSRLW      $4, X8, X9     \
	VINSERTI128 $1, X9, Y8, Y8 \
	VPAND       NIBBLE, Y8, Y8

// FIFTH: Y8 |= 16 where the 32 bits at off are set. Clobbers Y9.
#define FIFTH(off) \
	VPBROADCASTD off(SI), Y9   \
	VPSHUFB      SPREAD, Y9, Y9 \
	VPAND        BITS, Y9, Y9  \
	VPCMPEQB     BITS, Y9, Y9  \
	VPAND        B16, Y9, Y9   \
	VPOR         Y9, Y8, Y8

// The legacy types: 32 elements, both lanes of Y8.

TEXT FN_q4_0(SB), NOSPLIT, $0-24
	ARGS
loop:
	HALF(0, V2)
	NIBBLES(2)
	VPSUBB       B8, Y8, Y8
	VEXTRACTI128 $1, Y8, X9
	PUT(X8, V2, 0)
	PUT(X9, V2, 64)
	NEXT(18, 32, loop)

TEXT FN_q4_1(SB), NOSPLIT, $0-24
	ARGS
loop:
	HALF(0, V2)
	HALF(2, V3)
	NIBBLES(4)
	VEXTRACTI128 $1, Y8, X9
	PUTADD(X8, V2, V3, 0)
	PUTADD(X9, V2, V3, 64)
	NEXT(20, 32, loop)

TEXT FN_q5_0(SB), NOSPLIT, $0-24
	ARGS
loop:
	HALF(0, V2)
	NIBBLES(6)
	FIFTH(2)
	VPSUBB       B16, Y8, Y8
	VEXTRACTI128 $1, Y8, X9
	PUT(X8, V2, 0)
	PUT(X9, V2, 64)
	NEXT(22, 32, loop)

TEXT FN_q5_1(SB), NOSPLIT, $0-24
	ARGS
loop:
	HALF(0, V2)
	HALF(2, V3)
	NIBBLES(8)
	FIFTH(4)
	VEXTRACTI128 $1, Y8, X9
	PUTADD(X8, V2, V3, 0)
	PUTADD(X9, V2, V3, 64)
	NEXT(24, 32, loop)

TEXT FN_q8_0(SB), NOSPLIT, $0-24
	ARGS
loop:
	HALF(0, V2)
	VMOVDQU 2(SI), X8
	VMOVDQU 18(SI), X9
	PUT(X8, V2, 0)
	PUT(X9, V2, 64)
	NEXT(34, 32, loop)

TEXT FN_iq4_nl(SB), NOSPLIT, $0-24
	ARGS
	VMOVDQU LEVELS, Y10
loop:
	HALF(0, V2)
	NIBBLES(2)
	VPSHUFB      Y8, Y10, Y8
	VEXTRACTI128 $1, Y8, X9
	PUT(X8, V2, 0)
	PUT(X9, V2, 64)
	NEXT(18, 32, loop)

// The scale of MXFP4 is half of 2^(e-127): for e < 2 that is subnormal, 1<<21 or
// 1<<22 as an integer, else e-1 in the exponent.
TEXT FN_mxfp4(SB), NOSPLIT, $0-24
	ARGS
	VMOVDQU E2M1, Y10
loop:
	MOVBLZX (SI), AX
	LEAL    -1(AX), BX
	SHLL    $23, BX
	CMPL    AX, $2
	JGE     normal
	MOVL    $0x200000, BX
	TESTL   AX, AX
	JEQ     normal
	ADDL    BX, BX
normal:
	VMOVD        BX, X2
	VBROADCASTSS X2, V2
	NIBBLES(1)
	VPSHUFB      Y8, Y10, Y8
	VEXTRACTI128 $1, Y8, X9
	PUT(X8, V2, 0)
	PUT(X9, V2, 64)
	NEXT(17, 32, loop)

// Nibbles of bitsandbytes: of each byte the high one comes first. A quadword per byte
// becomes two indices, of which the table lookup looks at the lowest four bits.
#ifdef WIDE
#define LOOKUP \
	VPMOVZXBQ (SI), V2      \
	VPSLLQ    $32, V2, V3   \
	VPSRLQ    $4, V2, V2    \
	VPORQ     V3, V2, V2    \
	VPERMPS   V0, V2, V2    \
	VMOVUPS   V2, (DI)
#else
// LOOKUP4 does four of the eight bytes; values 0 to 7 are in V0, the others in V1.
#define LOOKUP4(in, off) \
	VPMOVZXBQ in(SI), V2        \
	VPSLLQ    $32, V2, V3       \
	VPSRLQ    $4, V2, V2        \
	VPOR      V3, V2, V2        \
	VPSLLD    $28, V2, V3       \
	VPERMPS   V0, V2, V4        \
	VPERMPS   V1, V2, V5        \
	VBLENDVPS V3, V5, V4, V4    \
	VMOVUPS   V4, off(DI)
#define LOOKUP LOOKUP4(0, 0) \
	LOOKUP4(4, 32)
#endif

// func lookup(dst *float32, codes *byte, values *float32, blocks, size int): each
// block is size bytes, a multiple of 8, and has sixteen values of its own.
TEXT FN_lookup(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ codes+8(FP), SI
	MOVQ values+16(FP), DX
	MOVQ blocks+24(FP), CX
	MOVQ size+32(FP), BX
block:
	VMOVUPS (DX), V0
#ifndef WIDE
	VMOVUPS 32(DX), V1
#endif
	ADDQ $64, DX
	MOVQ BX, AX
loop:
	LOOKUP
	ADDQ $8, SI
	ADDQ $64, DI
	SUBQ $8, AX
	JG   loop
	DECQ CX
	JNE  block
	VZEROUPPER
	RET

// func int8(dst *float32, codes *byte, n int, scale, inv float32): n > 0, a multiple of 16
TEXT FN_int8(SB), NOSPLIT, $0-32
	MOVQ         dst+0(FP), DI
	MOVQ         codes+8(FP), SI
	MOVQ         n+16(FP), CX
	VBROADCASTSS scale+24(FP), V2
	VBROADCASTSS inv+28(FP), V3
loop:
	VPMOVSXBD (SI), V0
	VCVTDQ2PS V0, V0
	VMULPS    V2, V0, V0
	VMULPS    V3, V0, V0
	VMOVUPS   V0, (DI)
#ifndef WIDE
	VPMOVSXBD 8(SI), V0
	VCVTDQ2PS V0, V0
	VMULPS    V2, V0, V0
	VMULPS    V3, V0, V0
	VMOVUPS   V0, 32(DI)
#endif
	ADDQ $16, SI
	ADDQ $64, DI
	SUBQ $16, CX
	JG   loop
	VZEROUPPER
	RET
