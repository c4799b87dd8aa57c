//! Instructions one by one: expectations are tables and closed forms, not the simulator's own functions.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use tgc_simulator::{LaunchOptions, LaunchShape, Memory, Module, Parameters, launch};

/// Runs `body` for 32 lanes. `%ra` and `%rb` hold two input words of the lane, `%rda` both as 64 bits; the body
/// leaves its result in `%rd0`.
fn run(body: &str, a: &[u32; 32], b: &[u32; 32]) -> [u64; 32] {
    let text = format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 a, .param .u64 b, .param .u64 d)\n{{\n\
         .reg .pred %p<8>;\n.reg .b16 %h<16>;\n.reg .b32 %r<32>;\n.reg .f32 %f<32>;\n.reg .b64 %rd<32>;\n.reg .f64 %fd<16>;\n\
         .reg .b32 %ra, %rb, %t;\n.reg .b64 %rda, %pa, %pb, %pd, %o;\n\
         ld.param.u64 %pa, [a]; ld.param.u64 %pb, [b]; ld.param.u64 %pd, [d];\n\
         mov.u32 %t, %tid.x; mul.wide.u32 %o, %t, 4;\n\
         add.s64 %pa, %pa, %o; add.s64 %pb, %pb, %o; add.s64 %pd, %pd, %o; add.s64 %pd, %pd, %o;\n\
         ld.global.u32 %ra, [%pa]; ld.global.u32 %rb, [%pb]; mov.b64 %rda, {{%ra, %rb}};\n\
         mov.b64 %rd0, 0; mov.f32 %f1, 0f00000000;\n{body}\nst.global.u64 [%pd], %rd0;\nret;\n}}"
    );
    let module = Module::parse(&text).unwrap_or_else(|e| panic!("{e}\n{body}"));
    let mut memory = Memory::new(1 << 16);
    let variables = module.place_variables(&mut memory).unwrap();
    let words = |w: &[u32]| w.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let (pa, pb) =
        (memory.allocate_from(&words(a)).unwrap(), memory.allocate_from(&words(b)).unwrap());
    let pd = memory.allocate(256).unwrap();
    let parameters = Parameters::new().u64(pa).u64(pb).u64(pd);
    let shape = LaunchShape::linear(1, 32, 0);
    let report = launch(
        &module,
        &variables,
        "k",
        &memory,
        &shape,
        parameters.bytes(),
        &LaunchOptions::default(),
    );
    let findings = report.unwrap().findings;
    assert!(findings.is_empty(), "{body}: {}", findings[0]);
    let mut out = [0; 256];
    memory.read(pd, &mut out).unwrap();
    std::array::from_fn(|l| u64::from_le_bytes(out[8 * l..8 * l + 8].try_into().unwrap()))
}

fn lane(f: impl Fn(u32) -> u32) -> [u32; 32] {
    std::array::from_fn(|l| f(l as u32))
}

/// Result of one 32-bit instruction on two words.
fn one(instruction: &str, a: u32, b: u32) -> u32 {
    let body = format!("{instruction}\ncvt.u64.u32 %rd0, %r0;");
    run(&body, &[a; 32], &[b; 32])[0] as u32
}

/// Checks rows of (instruction, a, b, result).
fn table(rows: &[(&str, u32, u32, u32)]) {
    for (instruction, a, b, expected) in rows {
        let found = one(instruction, *a, *b);
        assert_eq!(
            found, *expected,
            "{instruction} on {a:#x} {b:#x}: {found:#x}, not {expected:#x}"
        );
    }
}

const fn bits(x: f32) -> u32 {
    x.to_bits()
}

#[test]
fn integers_of_32_bits() {
    table(&[
        ("add.s32 %r0, %ra, %rb;", u32::MAX, 2, 1),
        ("add.sat.s32 %r0, %ra, %rb;", i32::MAX as u32, 1, i32::MAX as u32),
        ("sub.sat.s32 %r0, %ra, %rb;", i32::MIN as u32, 1, i32::MIN as u32),
        ("mul.lo.s32 %r0, %ra, %rb;", 0x10001, 0x10001, 0x20001),
        ("mul.hi.u32 %r0, %ra, %rb;", 0x8000_0000, 6, 3),
        ("mul.hi.s32 %r0, %ra, %rb;", -2i32 as u32, 3, u32::MAX),
        ("mad.lo.s32 %r0, %ra, %rb, 5;", 7, -2i32 as u32, -9i32 as u32),
        ("div.s32 %r0, %ra, %rb;", -7i32 as u32, 2, -3i32 as u32),
        ("div.u32 %r0, %ra, %rb;", 7, 0, u32::MAX),
        ("rem.s32 %r0, %ra, %rb;", -7i32 as u32, 2, -1i32 as u32),
        ("min.s32 %r0, %ra, %rb;", -1i32 as u32, 1, -1i32 as u32),
        ("max.u32 %r0, %ra, %rb;", -1i32 as u32, 1, u32::MAX),
        ("abs.s32 %r0, %ra;", -5i32 as u32, 0, 5),
        ("shl.b32 %r0, %ra, %rb;", 1, 32, 0),
        ("shr.s32 %r0, %ra, %rb;", i32::MIN as u32, 40, u32::MAX),
        ("shr.u32 %r0, %ra, %rb;", i32::MIN as u32, 31, 1),
        ("not.b32 %r0, %ra;", 0xf0f0_f0f0, 0, 0x0f0f_0f0f),
        ("popc.b32 %r0, %ra;", 0xff01, 0, 9),
        ("clz.b32 %r0, %ra;", 1, 0, 31),
        ("brev.b32 %r0, %ra;", 1, 0, 0x8000_0000),
        ("bfind.u32 %r0, %ra;", 0x500, 0, 10),
        ("bfind.u32 %r0, %ra;", 0, 0, u32::MAX),
        ("bfind.s32 %r0, %ra;", !0x500, 0, 10),
        ("bfe.u32 %r0, %ra, 4, 8;", 0xabcd, 0, 0xbc),
        ("bfe.s32 %r0, %ra, 4, 8;", 0xabcd, 0, 0xffff_ffbc),
        ("bfi.b32 %r0, %ra, %rb, 8, 4;", 0x5, 0xffff_ffff, 0xffff_f5ff),
        ("lop3.b32 %r0, %ra, %rb, 15, 0xca;", 0xff00, 0x1234, 0x1234 & 0xff00 | 15),
        ("prmt.b32 %r0, %ra, %rb, 0x4021;", 0x4433_2211, 0x8877_6655, 0x5511_3322),
        ("prmt.b32 %r0, %ra, %rb, 0xb000;", 0x8433_2211, 0, 0xff11_1111),
        ("shf.l.wrap.b32 %r0, %ra, %rb, 8;", 0xaabb_ccdd, 0x1122_3344, 0x2233_44aa),
        ("shf.r.clamp.b32 %r0, %ra, %rb, 40;", 0xaabb_ccdd, 0x1122_3344, 0x1122_3344),
        ("sad.u32 %r0, %ra, %rb, 100;", 3, 10, 107),
        ("dp4a.s32.s32 %r0, %ra, %rb, 10;", 0x01ff_0302, 0x0102_0304, 10 + 1 - 2 + 9 + 8),
    ]);
}

#[test]
fn floats_of_32_bits_with_their_modes() {
    let tiny = bits(1e-40);
    table(&[
        ("add.f32 %r0, %ra, %rb;", bits(1.5), bits(2.25), bits(3.75)),
        ("add.rz.f32 %r0, %ra, %rb;", bits(1.0), bits(-1e-10), 0x3f7f_ffff),
        ("add.rp.f32 %r0, %ra, %rb;", bits(1.0), bits(1e-10), 0x3f80_0001),
        ("add.rm.f32 %r0, %ra, %rb;", bits(1.0), bits(-1.0), bits(-0.0)),
        ("mul.rn.f32 %r0, %ra, %rb;", bits(3.0), bits(1.0 / 3.0), bits(1.0)),
        ("mul.rm.f32 %r0, %ra, %rb;", bits(3.0), 0x3eaa_aaab, bits(1.0)),
        ("mul.ftz.f32 %r0, %ra, %rb;", tiny, bits(1e10), 0),
        ("mul.f32 %r0, %ra, %rb;", tiny, bits(0.5), bits(1e-40) / 2),
        (
            "fma.rn.f32 %r0, %ra, %rb, %ra;",
            bits(1.0 + f32::EPSILON),
            bits(1.0),
            bits(2.0 + 2.0 * f32::EPSILON),
        ),
        ("fma.rn.sat.f32 %r0, %ra, %rb, %ra;", bits(2.0), bits(3.0), bits(1.0)),
        ("div.rn.f32 %r0, %ra, %rb;", bits(1.0), bits(0.0), bits(f32::INFINITY)),
        ("sqrt.rn.f32 %r0, %ra;", bits(2.0), 0, 0x3fb5_04f3),
        ("sqrt.rp.f32 %r0, %ra;", bits(2.0), 0, 0x3fb5_04f4),
        ("rcp.rn.f32 %r0, %ra;", bits(3.0), 0, 0x3eaa_aaab),
        ("min.f32 %r0, %ra, %rb;", bits(f32::NAN), bits(1.0), bits(1.0)),
        ("min.f32 %r0, %ra, %rb;", bits(0.0), bits(-0.0), bits(-0.0)),
        ("max.NaN.f32 %r0, %ra, %rb;", bits(f32::NAN), bits(1.0), 0x7fff_ffff),
        ("add.f32 %r0, %ra, %rb;", bits(f32::INFINITY), bits(f32::NEG_INFINITY), 0x7fff_ffff),
        ("copysign.f32 %r0, %ra, %rb;", bits(-1.0), bits(3.0), bits(-3.0)),
        ("ex2.approx.ftz.f32 %r0, %ra;", bits(10.0), 0, bits(1024.0)),
        ("lg2.approx.f32 %r0, %ra;", bits(8.0), 0, bits(3.0)),
        ("rsqrt.approx.f32 %r0, %ra;", bits(16.0), 0, bits(0.25)),
        ("neg.f32 %r0, %ra;", bits(1.0), 0, bits(-1.0)),
    ]);
}

#[test]
fn conversions_round_and_saturate() {
    table(&[
        ("cvt.rzi.s32.f32 %r0, %ra;", bits(-2.9), 0, -2i32 as u32),
        ("cvt.rni.s32.f32 %r0, %ra;", bits(2.5), 0, 2),
        ("cvt.rmi.s32.f32 %r0, %ra;", bits(-2.1), 0, -3i32 as u32),
        ("cvt.rpi.u32.f32 %r0, %ra;", bits(2.1), 0, 3),
        ("cvt.rzi.u32.f32 %r0, %ra;", bits(-5.0), 0, 0),
        ("cvt.rzi.s32.f32 %r0, %ra;", bits(3e9), 0, i32::MAX as u32),
        ("cvt.rzi.s32.f32 %r0, %ra;", bits(f32::NAN), 0, 0),
        ("cvt.rn.f32.s32 %r0, %ra;", 16_777_217, 0, bits(16_777_216.0)),
        ("cvt.rp.f32.s32 %r0, %ra;", 16_777_217, 0, bits(16_777_218.0)),
        ("cvt.rz.f32.u32 %r0, %ra;", u32::MAX, 0, 0x4f7f_ffff),
        ("cvt.rni.f32.f32 %r0, %ra;", bits(3.5), 0, bits(4.0)),
        ("cvt.sat.f32.f32 %r0, %ra;", bits(-3.5), 0, 0),
        ("cvt.rn.f16x2.f32 %r0, %ra, %rb;", bits(1.0), bits(-2.0), 0x3c00_c000),
        ("cvt.rn.bf16x2.f32 %r0, %ra, %rb;", bits(1.0), 0x3f80_8000, 0x3f80_3f80),
        (
            "cvt.rn.satfinite.e4m3x2.f32 %h1, %ra, %rb; cvt.u32.u16 %r0, %h1;",
            bits(448.0),
            bits(1000.0),
            0x7e7e,
        ),
        ("cvt.rna.tf32.f32 %r0, %ra;", 0x3f80_1000, 0, 0x3f80_2000),
        ("cvt.u16.u32 %h1, %ra; cvt.s32.s16 %r0, %h1;", 0x1_ffff, 0, u32::MAX),
        ("cvt.u32.u8 %r0, %ra;", 0x1ff, 0, 0xff),
        ("cvt.s32.s8 %r0, %ra;", 0x80, 0, 0xffff_ff80),
    ]);
}

#[test]
fn halves_are_rounded_once() {
    table(&[
        ("add.f16x2 %r0, %ra, %rb;", 0x3c00_4000, 0x3c00_4400, 0x4000_4600),
        ("fma.rn.f16x2 %r0, %ra, %rb, %rb;", 0x4000_3c00, 0x4200_3800, 0x4880_3c00),
        ("mul.bf16x2 %r0, %ra, %rb;", 0x4000_3f80, 0x4040_4040, 0x40c0_4040),
        ("fma.rn.relu.f16x2 %r0, %ra, %rb, %rb;", 0xc000_3c00, 0x4200_3800, 0x0000_3c00),
        ("max.f16x2 %r0, %ra, %rb;", 0x3c00_fe00, 0x4000_3c00, 0x4000_3c00),
        ("neg.f16x2 %r0, %ra;", 0x3c00_8000, 0, 0xbc00_0000),
    ]);
}

#[test]
fn integers_and_floats_of_64_bits() {
    let value = 0x1234_5678_9abc_def0u64;
    let rows: &[(&str, u64)] = &[
        ("add.s64 %rd0, %rda, %rda;", value.wrapping_add(value)),
        ("mul.lo.s64 %rd0, %rda, %rda;", value.wrapping_mul(value)),
        ("mul.hi.u64 %rd0, %rda, %rda;", ((u128::from(value) * u128::from(value)) >> 64) as u64),
        ("div.s64 %rd0, %rda, 1000;", value / 1000),
        ("rem.u64 %rd0, %rda, 1000;", value % 1000),
        ("shr.s64 %rd0, %rda, 70;", 0),
        ("shl.b64 %rd0, %rda, 8;", value << 8),
        ("bfe.u64 %rd0, %rda, 8, 16;", 0xbcde),
        ("bfi.b64 %rd0, 5, %rda, 60, 4;", value & (u64::MAX >> 4) | 5 << 60),
        ("mul.wide.s32 %rd0, %ra, %rb;", (i64::from(0x9abc_def0u32 as i32) * 0x1234_5678) as u64),
        ("mad.wide.u32 %rd0, %ra, %rb, 7;", 0x9abc_def0 * 0x1234_5678 + 7),
        ("popc.b64 %r0, %rda; cvt.u64.u32 %rd0, %r0;", u64::from(value.count_ones())),
        ("mov.b64 {%r0, %r1}, %rda; mov.b64 %rd0, {%r1, %r0};", value.rotate_left(32)),
        (
            "add.cc.u32 %r0, %ra, %ra; addc.u32 %r1, %rb, 0; mov.b64 %rd0, {%r0, %r1};",
            (u64::from(0x9abc_def0u32) * 2) & 0xffff_ffff | 0x1234_5679 << 32,
        ),
        ("cvt.rn.f64.s64 %fd1, %rda; mov.b64 %rd0, %fd1;", (value as f64).to_bits()),
        (
            "mov.f64 %fd1, 0d4008000000000000; fma.rn.f64 %fd1, %fd1, %fd1, %fd1; mov.b64 %rd0, %fd1;",
            12f64.to_bits(),
        ),
        (
            "mov.f64 %fd1, 0d4008000000000000; div.rn.f64 %fd1, %fd1, 0d4010000000000000; mov.b64 %rd0, %fd1;",
            0.75f64.to_bits(),
        ),
    ];
    for (body, expected) in rows {
        let found = run(body, &[value as u32; 32], &[(value >> 32) as u32; 32])[5];
        assert_eq!(found, *expected, "{body}: {found:#x}, not {expected:#x}");
    }
}

#[test]
fn comparisons_treat_nan_as_ptx_says() {
    let cases = [
        ("eq", 0),
        ("ne", 0),
        ("lt", 0),
        ("ge", 0),
        ("neu", 1),
        ("ltu", 1),
        ("num", 0),
        ("nan", 1),
    ];
    for (relation, expected) in cases {
        let body = format!("setp.{relation}.f32 %p1, %ra, %rb; selp.u32 %r0, 1, 0, %p1;");
        table(&[(&body, bits(f32::NAN), bits(1.0), expected)]);
    }
    table(&[
        ("setp.lt.s32 %p1, %ra, %rb; selp.u32 %r0, 1, 0, %p1;", -1i32 as u32, 0, 1),
        ("setp.lo.u32 %p1, %ra, %rb; selp.u32 %r0, 1, 0, %p1;", -1i32 as u32, 0, 0),
        ("setp.eq.s32 %p1|%p2, %ra, %rb; selp.u32 %r0, 1, 0, %p2;", 3, 4, 1),
        (
            "setp.ne.s32 %p1, %ra, 0; setp.gt.and.s32 %p2, %rb, 2, %p1; selp.u32 %r0, 1, 0, %p2;",
            1,
            3,
            1,
        ),
        (
            "setp.ne.s32 %p1, %ra, 0; setp.gt.and.s32 %p2, %rb, 2, !%p1; selp.u32 %r0, 1, 0, %p2;",
            1,
            3,
            0,
        ),
        (
            "setp.ne.s32 %p1, %ra, 0; setp.gt.or.s32 %p2, %rb, 7, %p1; selp.u32 %r0, 1, 0, %p2;",
            1,
            3,
            1,
        ),
        ("testp.infinite.f32 %p1, %ra; selp.u32 %r0, 1, 0, %p1;", bits(f32::INFINITY), 0, 1),
    ]);
}

/// Source lane of a shuffle, written down from the definition by hand.
fn shuffled(mode: &str, lane: i64, b: i64, width: i64) -> (i64, bool) {
    let segment = lane / width * width;
    match mode {
        "up" => {
            if lane - b >= segment {
                (lane - b, true)
            } else {
                (lane, false)
            }
        }
        "down" => {
            if lane + b < segment + width {
                (lane + b, true)
            } else {
                (lane, false)
            }
        }
        "bfly" => {
            if (lane ^ b) < segment + width {
                (lane ^ b, true)
            } else {
                (lane, false)
            }
        }
        _ => (segment + b % width, true),
    }
}

#[test]
fn shuffles_move_values_within_segments() {
    for mode in ["up", "down", "bfly", "idx"] {
        for width in [32, 16, 8, 4] {
            for b in [0, 1, 3, 7] {
                let clamp = (32 - width) << 8 | if mode == "up" { 0 } else { 31 };
                let body = format!(
                    "shfl.sync.{mode}.b32 %r0|%p1, %ra, {b}, {clamp}, -1; selp.u32 %r1, 1, 0, %p1; mov.b64 %rd0, {{%r0, %r1}};"
                );
                let found = run(&body, &lane(|l| 100 + l), &[0; 32]);
                for (l, found) in found.iter().enumerate() {
                    let (source, valid) = shuffled(mode, l as i64, b, width);
                    let expected = (100 + source) as u64 | u64::from(valid) << 32;
                    assert_eq!(*found, expected, "{mode} by {b} in {width}, lane {l}");
                }
            }
        }
    }
}

#[test]
fn votes_matches_and_reductions_see_all_members() {
    let odd = "and.b32 %r1, %ra, 1; setp.eq.u32 %p1, %r1, 1;";
    let check = |body: &str, f: &dyn Fn(u32) -> u32| {
        let found =
            run(&format!("{odd} {body} cvt.u64.u32 %rd0, %r0;"), &lane(|l| l), &lane(|l| l / 8));
        for (l, found) in found.iter().enumerate() {
            assert_eq!(*found as u32, f(l as u32), "{body} lane {l}");
        }
    };
    check("vote.sync.ballot.b32 %r0, %p1, -1;", &|_| 0xaaaa_aaaa);
    check("vote.sync.any.pred %p2, %p1, -1; selp.u32 %r0, 1, 0, %p2;", &|_| 1);
    check("vote.sync.all.pred %p2, %p1, -1; selp.u32 %r0, 1, 0, %p2;", &|_| 0);
    check("match.any.sync.b32 %r0, %rb, -1;", &|l| 0xff << (l / 8 * 8));
    check("redux.sync.add.u32 %r0, %ra, -1;", &|_| 496);
    check("redux.sync.max.s32 %r0, %ra, -1;", &|_| 31);
    check("elect.sync _|%p2, -1; selp.u32 %r0, 1, 0, %p2;", &|l| u32::from(l == 0));
    check("activemask.b32 %r0;", &|_| u32::MAX);
    check("@%p1 activemask.b32 %r0; @!%p1 mov.u32 %r0, 0;", &|l| {
        if l % 2 == 1 { 0xaaaa_aaaa } else { 0 }
    });
}

#[test]
fn lanes_that_part_at_branches_come_back() {
    // Collatz steps: every lane leaves the loop at another time.
    let body = "mov.u32 %r1, %ra; mov.u32 %r0, 0;\nloop: setp.le.u32 %p1, %r1, 1; @%p1 bra out; and.b32 %r2, %r1, 1; setp.eq.u32 %p2, %r2, 0; @%p2 bra even; mad.lo.u32 %r1, %r1, 3, 1; bra next;\neven: shr.u32 %r1, %r1, 1;\nnext: add.u32 %r0, %r0, 1; bra loop;\nout: redux.sync.add.u32 %r3, %r0, -1; mov.b64 %rd0, {%r0, %r3};";
    let steps = |mut n: u32| {
        let mut count = 0;
        while n > 1 {
            n = if n.is_multiple_of(2) { n / 2 } else { 3 * n + 1 };
            count += 1;
        }
        count
    };
    let total: u32 = (0..32).map(steps).sum();
    for (l, found) in run(body, &lane(|l| l), &[0; 32]).iter().enumerate() {
        assert_eq!(*found, u64::from(steps(l as u32)) | u64::from(total) << 32, "lane {l}");
    }
}

#[test]
fn halves_of_a_warp_synchronise_among_themselves() {
    let body = "setp.lt.u32 %p1, %ra, 16; @%p1 bra low; shfl.sync.idx.b32 %r0, %ra, 31, 31, 0xffff0000; bra out;\nlow: shfl.sync.idx.b32 %r0, %ra, 3, 31, 0x0000ffff;\nout: cvt.u64.u32 %rd0, %r0;";
    for (l, found) in run(body, &lane(|l| l), &[0; 32]).iter().enumerate() {
        assert_eq!(*found, if l < 16 { 3 } else { 31 });
    }
}

#[test]
fn indexed_branches_reach_their_targets() {
    let body = "and.b32 %r1, %ra, 3;\ntable: .branchtargets t0, t1, t2, t3;\nbrx.idx %r1, table;\nt0: mov.u32 %r0, 10; bra out;\nt1: mov.u32 %r0, 11; bra out;\nt2: mov.u32 %r0, 12; bra out;\nt3: mov.u32 %r0, 13;\nout: cvt.u64.u32 %rd0, %r0;";
    for (l, found) in run(body, &lane(|l| l), &[0; 32]).iter().enumerate() {
        assert_eq!(*found, 10 + l as u64 % 4);
    }
}

#[test]
fn atomics_return_what_was_there() {
    let body = "mov.u64 %rd1, %pd; mov.u32 %r9, %tid.x; mul.wide.u32 %rd2, %r9, 8; sub.s64 %rd1, %rd1, %rd2; mov.u64 %rd3, 0; st.global.u64 [%pd], %rd3; bar.warp.sync -1; atom.global.add.u32 %r0, [%rd1], 1; bar.warp.sync -1; cvt.u64.u32 %rd0, %r0; bar.warp.sync -1;";
    let mut found = run(body, &[0; 32], &[0; 32]);
    found.sort_unstable();
    assert_eq!(found, std::array::from_fn(|l| l as u64));
}

#[test]
fn generic_local_and_vector_accesses_reach_their_memory() {
    let body = ".local .align 8 .b8 room[16]; .shared .align 8 .b8 all[256]; mov.u64 %rd1, room; cvta.local.u64 %rd2, %rd1; st.u32 [%rd2+4], %ra; ld.local.u32 %r1, [%rd1+4]; mov.u64 %rd3, all; cvta.shared.u64 %rd4, %rd3; mul.wide.u32 %rd5, %t, 8; add.s64 %rd4, %rd4, %rd5; st.v2.u32 [%rd4], {%r1, %rb}; bar.sync 0; xor.b32 %r2, %t, 1; shl.b32 %r2, %r2, 3; mov.u32 %r3, all; add.s32 %r3, %r3, %r2; ld.shared.v2.u32 {%r4, %r5}, [%r3]; mov.b64 %rd0, {%r4, %r5};";
    for (l, found) in run(body, &lane(|l| l + 7), &lane(|l| l * 3)).iter().enumerate() {
        let other = l as u64 ^ 1;
        assert_eq!(*found, (other + 7) | ((other * 3) << 32));
    }
}

#[test]
fn calls_pass_parameters_and_results() {
    let text = ".version 7.0\n.target sm_80\n.address_size 64\n.func (.param .b32 r) twice(.param .b32 x)\n{\n .reg .b32 %r<3>;\n .reg .pred %p;\n ld.param.u32 %r1, [x];\n setp.gt.u32 %p, %r1, 10;\n @%p bra big;\n shl.b32 %r1, %r1, 1;\n st.param.b32 [r], %r1;\n ret;\nbig:\n st.param.b32 [r], 0;\n ret;\n}\n.visible .entry k(.param .u64 d)\n{\n .reg .b32 %r<4>;\n .reg .b64 %rd<4>;\n ld.param.u64 %rd1, [d];\n mov.u32 %r1, %tid.x;\n {\n .param .b32 p0;\n .param .b32 q0;\n st.param.b32 [p0], %r1;\n call.uni (q0), twice, (p0);\n ld.param.b32 %r2, [q0];\n }\n mul.wide.u32 %rd2, %r1, 4;\n add.s64 %rd3, %rd1, %rd2;\n st.global.u32 [%rd3], %r2;\n ret;\n}";
    let module = Module::parse(text).unwrap();
    let mut memory = Memory::new(1 << 12);
    let variables = module.place_variables(&mut memory).unwrap();
    let d = memory.allocate(128).unwrap();
    let shape = LaunchShape::linear(1, 32, 0);
    let parameters = Parameters::new().u64(d);
    launch(
        &module,
        &variables,
        "k",
        &memory,
        &shape,
        parameters.bytes(),
        &LaunchOptions::default(),
    )
    .unwrap();
    let mut out = [0; 128];
    memory.read(d, &mut out).unwrap();
    for (l, word) in out.chunks(4).enumerate() {
        let expected = if l > 10 { 0 } else { 2 * l as u32 };
        assert_eq!(word, expected.to_le_bytes(), "lane {l}");
    }
}
