//! Error statistics of a tensor against another, in the measures that people
//! report, and the presets that decide by them.

use tgc_ir::Tensor;

/// How far one tensor is from another. Equal infinities and two NaN are no
/// difference; elements where only one side is finite count in
/// [`Statistics::mismatched`] and in nothing else.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Statistics {
    /// |got − want|.
    pub abs: Spread,
    /// |got − want| / (|want| + 1e-5), the usual guarded form.
    pub rel: Spread,
    /// ‖got − want‖ / ‖want‖ in the Euclidean norm.
    pub norm_rel: f64,
    /// Cosine of the angle between the two as vectors.
    pub cosine: f64,
    /// Elements where one side is finite and the other is not.
    pub mismatched: usize,
    /// The first element of `got` that is not finite though `want` is.
    pub first_non_finite: Option<usize>,
    /// Row-major index of the largest absolute error.
    pub at: usize,
    /// Largest |want|.
    pub magnitude: f64,
}

/// A published acceptance rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Largest error at most 0.5 % of the largest logit.
    Logits,
    /// Largest error below 3.5e-2 and median relative error below 2e-3.
    WenetEncoder,
    /// Largest error below 4e-1 and median relative error below 2e-4.
    WenetDecoder,
}

impl Preset {
    /// The rule in words.
    pub fn rule(self) -> &'static str {
        match self {
            Preset::Logits => "0.5 % of the largest logit",
            Preset::WenetEncoder => "max abs 3.5e-2, median rel 2e-3",
            Preset::WenetDecoder => "max abs 4e-1, median rel 2e-4",
        }
    }

    /// Whether an output passes; one with mismatched infinities or NaN never does.
    pub fn accepts(self, s: &Statistics) -> bool {
        let within = match self {
            Preset::Logits => s.abs.max <= 0.005 * s.magnitude,
            Preset::WenetEncoder => s.abs.max < 3.5e-2 && s.rel.median < 2e-3,
            Preset::WenetDecoder => s.abs.max < 4e-1 && s.rel.median < 2e-4,
        };
        within && s.mismatched == 0
    }
}

/// A distribution of errors.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Spread {
    /// Largest.
    pub max: f64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub median: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
}

/// Keeps relative errors of zeros finite; the figure of the contest scripts
/// that the presets come from.
const REL_GUARD: f64 = 1e-5;

impl Spread {
    fn of(mut errors: Vec<f64>) -> Spread {
        errors.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let last = errors.len().saturating_sub(1);
            errors.get((share * last as f64).round() as usize).copied().unwrap_or(0.0)
        };
        let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
        Spread { max: at(1.0), mean, median: at(0.5), p99: at(0.99) }
    }
}

/// Statistics of `got` against `want`.
///
/// # Errors
/// When shapes differ.
pub fn statistics(got: &Tensor, want: &Tensor) -> Result<Statistics, String> {
    if got.shape() != want.shape() {
        return Err(format!("shape {:?} instead of {:?}", got.shape(), want.shape()));
    }
    let (mut abs, mut rel) = (Vec::new(), Vec::new());
    let (mut dot, mut got_square, mut want_square, mut error_square) = (0.0, 0.0, 0.0, 0.0);
    let (mut mismatched, mut first_non_finite) = (0, None);
    let (mut largest, mut at, mut magnitude) = (0.0, 0, 0.0f64);
    for (i, (g, w)) in got.to_f64().into_iter().zip(want.to_f64()).enumerate() {
        if g.is_finite() && w.is_finite() {
            let error = (g - w).abs();
            if error > largest {
                (largest, at) = (error, i);
            }
            magnitude = magnitude.max(w.abs());
            abs.push(error);
            rel.push(error / (w.abs() + REL_GUARD));
            dot += g * w;
            got_square += g * g;
            want_square += w * w;
            error_square += error * error;
        } else if g != w && !(g.is_nan() && w.is_nan()) {
            mismatched += 1;
            if w.is_finite() {
                first_non_finite.get_or_insert(i);
            }
        }
    }
    let norms = (got_square * want_square).sqrt();
    Ok(Statistics {
        norm_rel: if error_square == 0.0 { 0.0 } else { (error_square / want_square).sqrt() },
        cosine: if norms == 0.0 { 1.0 } else { dot / norms },
        abs: Spread::of(abs),
        rel: Spread::of(rel),
        mismatched,
        first_non_finite,
        at,
        magnitude,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f64]) -> Tensor {
        let values: Vec<_> = values.iter().map(|v| tgc_ir::scalar::Value::Float(*v)).collect();
        Tensor::from_values(tgc_ir::DType::F64, &[values.len()], &values)
    }

    #[test]
    fn measures_are_those_of_their_definitions() {
        let s = statistics(&tensor(&[1.0, 2.5, -4.0]), &tensor(&[1.0, 2.0, -4.5]))
            .expect("equal shapes");
        assert_eq!((s.abs.max, s.abs.median, s.at, s.magnitude), (0.5, 0.5, 1, 4.5));
        assert!((s.abs.mean - 1.0 / 3.0).abs() < 1e-12);
        assert!((s.rel.max - 0.5 / (2.0 + REL_GUARD)).abs() < 1e-12);
        assert!((s.norm_rel - (0.5f64 / (1.0 + 4.0 + 20.25)).sqrt()).abs() < 1e-12);
        let cosine = (1.0 + 5.0 + 18.0) / ((1.0 + 6.25 + 16.0f64).sqrt() * 25.25f64.sqrt());
        assert!((s.cosine - cosine).abs() < 1e-12);
    }

    #[test]
    fn infinities_and_nan_count_where_the_other_side_is_finite() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        let s = statistics(&tensor(&[inf, nan, 1.0, nan]), &tensor(&[inf, nan, 1.0, 2.0]));
        let s = s.expect("equal shapes");
        assert_eq!((s.mismatched, s.first_non_finite, s.abs.max), (1, Some(3), 0.0));
        assert!(!Preset::Logits.accepts(&s));
        assert!(statistics(&tensor(&[1.0]), &tensor(&[1.0, 2.0])).is_err());
    }

    #[test]
    fn presets_decide_at_their_figures() {
        let want = tensor(&[10.0, 1.0, 0.1]);
        let near = statistics(&tensor(&[10.04, 1.0, 0.1]), &want).expect("equal shapes");
        let far = statistics(&tensor(&[10.06, 1.0, 0.1]), &want).expect("equal shapes");
        assert!(Preset::Logits.accepts(&near) && !Preset::Logits.accepts(&far));
        assert!(!Preset::WenetEncoder.accepts(&near) && Preset::WenetDecoder.accepts(&far));
    }
}
