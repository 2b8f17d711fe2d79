//go:build !noasm

#include "textflag.h"

#define WIDE
#define V0 Z0
#define V1 Z1
#define V2 Z2
#define V3 Z3
#define V4 Z4
#define V5 Z5
#define V6 Z6
#define V7 Z7
#define V8 Z8
#define V9 Z9
#define V10 Z10
#define V11 Z11
#define V12 Z12
#define V13 Z13
#define V14 Z14
#define V15 Z15
#define M1 K1
#define M2 K2

#define FN_weighimportance ·weighImportanceAVX512
#define FN_weighmean ·weighMeanAVX512
#define FN_weighabs ·weighAbsAVX512
#define FN_weighsquare ·weighSquareAVX512
#define FN_searchmin ·searchMinAVX512
#define FN_searchscale ·searchScaleAVX512
#define FN_searchdescent ·searchDescentAVX512
#define FN_searchpositive ·searchPositiveAVX512
#define FN_requantize ·requantizeAVX512
#define FN_roundcodes ·roundCodesAVX512
#define FN_searchiq4 ·searchIQ4AVX512
#define FN_codesiq4 ·codesIQ4AVX512
#define FN_scan ·latticeScanAVX512
#define FN_round ·latticeRoundAVX512
#define FN_fit ·latticeFitAVX512
#define WIDTH 16

#include "simd_enc_amd64.h"
#include "simd_encpos_amd64.h"
#include "simd_enciq_amd64.h"
#include "simd_enclat_amd64.h"
