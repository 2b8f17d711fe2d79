// Of the tiles of 32 columns of the AVX-512 tier, in float32 and in bf16; see type tile for
// what they compute. A row of the tile is two registers, Z8 up; a step of k reads 32
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

// Loads and stores of a row, then of four rows from a pointer.

#define LOAD(C, LO, HI) \
	VMOVUPS C, LO;    \
	VMOVUPS 64+C, HI

#define STORE(C, LO, HI) \
	VMOVUPS LO, C;    \
	VMOVUPS HI, 64+C

#define LOAD4(P, A, B, C, D, E, F, G, H) \
	LOAD(0(P), A, B);           \
	LOAD(0(P)(R8*1), C, D);     \
	LOAD(0(P)(R8*2), E, F);     \
	LOAD(0(P)(R15*1), G, H)

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
