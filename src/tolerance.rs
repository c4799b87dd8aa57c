//! Comparing tensors.

use tgc_ir::Tensor;

/// How two tensors differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Largest |got − want|.
    pub max_abs: f64,
    /// Mean |got − want|.
    pub mean_abs: f64,
    /// Largest |want|.
    pub max_want: f64,
    /// Largest |got − want| / (atol + rtol·|want|); at most 1 passes.
    pub excess: f64,
    /// Row-major index of the largest excess.
    pub at: usize,
}

/// Compares element by element; equal infinities and two NaN are no difference.
///
/// # Errors
/// When types or shapes differ.
pub fn compare(got: &Tensor, want: &Tensor, rtol: f64, atol: f64) -> Result<Difference, String> {
    if got.shape() != want.shape() || got.dtype() != want.dtype() {
        return Err(format!(
            "{}{:?} instead of {}{:?}",
            got.dtype(),
            got.shape(),
            want.dtype(),
            want.shape()
        ));
    }
    let mut out = Difference { max_abs: 0.0, mean_abs: 0.0, max_want: 0.0, excess: 0.0, at: 0 };
    let mut sum = 0.0;
    for i in 0..want.len() {
        let (g, w) = (got.value(i).as_f64(), want.value(i).as_f64());
        if w.is_finite() {
            out.max_want = out.max_want.max(w.abs());
        }
        if g == w || (g.is_nan() && w.is_nan()) {
            continue;
        }
        let error = (g - w).abs();
        let excess = error / (atol + rtol * w.abs());
        let (error, excess) = (nan_as_infinity(error), nan_as_infinity(excess));
        sum += error;
        out.max_abs = out.max_abs.max(error);
        if excess > out.excess {
            out.excess = excess;
            out.at = i;
        }
    }
    out.mean_abs = sum / want.len().max(1) as f64;
    Ok(out)
}

fn nan_as_infinity(x: f64) -> f64 {
    if x.is_nan() { f64::INFINITY } else { x }
}
