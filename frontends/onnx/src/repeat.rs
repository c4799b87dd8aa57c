//! Loops that stay loops: the count or the condition is data.
//!
//! A carried value keeps its type, or grows by the same extents in every
//! round: then its extents are expressions of the rounds completed, and the
//! loop needs a bound on their number.

use tgc_ir::attr::Region;
use tgc_ir::dim::{Dim, Symbol};
use tgc_ir::dtype::DType;
use tgc_ir::graph::NodeId;
use tgc_ir::infer::after_rounds;
use tgc_ir::op::Op;
use tgc_ir::types::TensorType;

use crate::cx::{Cx, OpError, Outputs, Val};
use crate::known::Known;
use crate::proto::GraphProto;
use crate::region::Built;

/// Rounds that memory for stacked results is planned for when nothing bounds them.
const ROUNDS_MAX: i64 = 1 << 20;

impl Cx<'_> {
    /// A `loop` whose count or condition is data.
    pub(crate) fn loop_region(
        &mut self,
        trip: Option<Val>,
        go: Option<Val>,
        body: &GraphProto,
        carried: &[Val],
    ) -> Result<Outputs, OpError> {
        let bound =
            trip.as_ref().and_then(|t| self.known(t)).and_then(|k| k.elems.first()?.dim().cloned());
        let bound = bound.filter(|b| b.as_const().is_none_or(|c| c < i64::MAX));
        let trip = self.trip_count(trip)?;
        let go = match go {
            Some(go) => {
                let go = self.node(&go)?;
                self.reshape(go, &[])?
            }
            None => self.truth(true)?,
        };
        let state: Vec<NodeId> = carried.iter().map(|v| self.node(v)).collect::<Result<_, _>>()?;
        let first: Vec<TensorType> = state.iter().map(|&x| self.graph.ty(x).clone()).collect();
        let rounds_max = bound.clone().map_or(Dim::Const(ROUNDS_MAX), |b| b.maximum(&Dim::ZERO));
        let rounds = self.data_symbol("rounds", &rounds_max);
        let built = self.round(body, &first, &first, &rounds, bound.is_some())?;
        let mut operands = vec![trip, go];
        operands.extend(state);
        operands.extend(&built.captures);
        let count = built.types.len() - 1;
        let op = Op::Loop { body: Region::new(built.graph), carried: first.len() as i64, rounds };
        let tuple = self.emit(op, &operands)?;
        (0..count).map(|i| self.proj(tuple, i).map(Val::Node)).collect()
    }

    fn trip_count(&mut self, trip: Option<Val>) -> Result<NodeId, OpError> {
        let Some(trip) = trip else { return self.int(i64::MAX) };
        let trip = self.node(&trip)?;
        let trip = self.cast(trip, DType::I64)?;
        self.reshape(trip, &[])
    }

    /// The body for carried values of types `now`; once more when they grow.
    fn round(
        &mut self,
        body: &GraphProto,
        first: &[TensorType],
        now: &[TensorType],
        rounds: &Symbol,
        is_bounded: bool,
    ) -> Result<Built, OpError> {
        let mut parameters = vec![TensorType::scalar(DType::I64)];
        parameters.extend(now.iter().cloned());
        let built = self.region(&parameters, &[], |cx, values| {
            let go = Known::scalar(DType::Bool, Dim::ONE).into();
            let inputs = [&[values[0].clone(), go], &values[1..]].concat();
            let mut results = cx.inline(body, &inputs)?;
            if let Some(go) = results.first_mut() {
                let node = cx.node(go)?;
                *go = cx.reshape(node, &[])?.into();
            }
            Ok(results)
        })?;
        if built.types.len() < 1 + now.len() {
            return Err(OpError::invalid("has a body with fewer results than carried values"));
        }
        let next = Dim::from(rounds) + Dim::ONE;
        let wanted = now.iter().map(|ty| TensorType {
            dtype: ty.dtype,
            shape: after_rounds(&ty.shape, rounds, &next).into_iter().collect(),
        });
        let changed =
            wanted.zip(&built.types[1..]).find(|(want, have)| !self.same_type(want, have));
        let Some((want, have)) = changed else { return Ok(built) };
        if now != first {
            return Err(OpError::unsupported(format!(
                "carries a value that is {have} where equal growth in every round makes it {want}"
            )));
        }
        let grown: Vec<TensorType> = first
            .iter()
            .zip(&built.types[1..])
            .map(|(before, after)| grown(before, after, rounds))
            .collect::<Result<_, _>>()?;
        if !is_bounded {
            return Err(OpError::unsupported(
                "carries a value that grows in every round, and nothing bounds their number: the trip count must be a constant, a dim or a small integer input",
            ));
        }
        self.round(body, first, &grown, rounds, is_bounded)
    }
}

/// The type of a carried value after `rounds` rounds that add to it what the first one adds.
fn grown(before: &TensorType, after: &TensorType, rounds: &Symbol) -> Result<TensorType, OpError> {
    if before.dtype != after.dtype || before.rank() != after.rank() {
        return Err(OpError::unsupported(format!(
            "carries a value that changes from {before} to {after} in a round"
        )));
    }
    let shape = before
        .shape
        .iter()
        .zip(&after.shape)
        .map(|(a, b)| a.clone() + (b.clone() - a.clone()) * Dim::from(rounds))
        .collect();
    Ok(TensorType { dtype: before.dtype, shape })
}
