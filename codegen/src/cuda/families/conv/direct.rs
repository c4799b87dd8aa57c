//! Direct convolution: one thread per output, for groups with few output channels (depthwise).

use tgc_ir::Dim;

use super::AsContract;
use crate::cuda::emit::{Emitted, Entry, Request};
use crate::cuda::families::frame;
use crate::cuda::print::body::BodyPrinter;
use crate::cuda::print::lines::Lines;
use crate::cuda::print::scope::{PrintError, Scope};
use crate::cuda::print::value_type;
use crate::schedule::{self, typical};

const THREADS: u32 = 256;

/// Emits the direct form of a rewritten convolution.
pub(super) fn emit(
    scope: &Scope<'_>,
    request: &Request<'_>,
    conv: &AsContract,
) -> Result<Emitted, PrintError> {
    let contract = &conv.contract;
    let name = &scope.program.name;
    let ty = scope.index_type();
    let sum = value_type(contract.acc);
    let (g, m, n, k) = (&contract.batch, &contract.m, &contract.n, &contract.k);
    // Images first, then channels, then cells: neighbouring threads have neighbouring cells.
    let space: Vec<Dim> = [&m[..1], g, n, &m[1..]].concat();
    let (cells, steps) = (frame::axis_names("m", m), frame::axis_names("k", k));
    let (group, column) = (frame::axis_names("g", g), frame::axis_names("n", n));
    let names: Vec<String> = [&cells[..1], &group, &column, &cells[1..]].concat();
    let left = BodyPrinter::new(
        scope,
        &[g.as_slice(), m, k].concat(),
        [group.clone(), cells.clone(), steps.clone()].concat(),
        Vec::new(),
    );
    let mut right = BodyPrinter::new(
        scope,
        &[g.as_slice(), k, n].concat(),
        [group.clone(), steps.clone(), column.clone()].concat(),
        Vec::new(),
    );
    right.prefix = "z";
    let out = BodyPrinter::new(
        scope,
        &[g.as_slice(), m, n].concat(),
        [group, cells, column].concat(),
        vec!["sum".to_owned()],
    );

    let points = Dim::product(&space);
    let mut lines = Lines::default();
    frame::open_entry(&mut lines, scope, name, THREADS, false);
    lines.line(format!("const {ty} p = blockIdx.x * ({ty}){THREADS} + threadIdx.x;"));
    lines.line(format!("if (p >= {}) return;", frame::print_extent(scope, &points)?));
    frame::decompose(&mut lines, scope, "p", &names, &space)?;
    lines.line(format!("{sum} sum = 0;"));
    let live: Vec<usize> = (0..k.len()).filter(|&step| steps[step] != "0").collect();
    for &step in &live {
        let extent = frame::print_extent(scope, &k[step])?;
        let name = &steps[step];
        lines.open(format!("for ({ty} {name} = 0; {name} < {extent}; {name}++) {{"));
    }
    let none = std::collections::BTreeMap::new();
    let guards = tgc_ir::kernel_program::Load {
        buffer: 0,
        index: Vec::new(),
        guards: conv.inside.clone(),
        otherwise: None,
    };
    let conditions = left.guard(&guards, &none)?;
    let condition = if conditions.is_empty() { "true".to_owned() } else { conditions.join(" && ") };
    lines.open(format!("if ({condition}) {{"));
    let a = left.print(&contract.lhs.body, &[contract.lhs.value], &mut lines)?;
    let b = right.print(&contract.rhs.body, &[contract.rhs.value], &mut lines)?;
    let product =
        format!("({sum})({}), ({sum})({})", a[&contract.lhs.value], b[&contract.rhs.value]);
    lines.line(format!("sum = multiply_add({product}, sum);"));
    lines.close("}");
    for _ in &live {
        lines.close("}");
    }
    out.print_stores(&contract.epilogue.body, &contract.epilogue.stores, &mut lines)?;
    lines.close("}");
    let flops = 2.0 * typical(scope.facts(), &points) * typical(scope.facts(), &Dim::product(k));
    let entry = Entry {
        guard: Vec::new(),
        name: name.clone(),
        grid: [points.ceil_div(&Dim::Const(i64::from(THREADS))), Dim::ONE, Dim::ONE],
        block: [THREADS, 1, 1],
        shared_bytes: Dim::ZERO,
        workspace_bytes: Dim::ZERO,
        configuration: format!("direct, {THREADS} threads, one output a thread"),
        // Index arithmetic takes about three quarters of the instructions.
        predicted_ns: schedule::roofline_ns(
            request.device,
            frame::buffer_bytes(scope),
            flops,
            request.device.f32_tflops / 4.0,
        ),
    };
    Ok(Emitted {
        family: "conv",
        skeletons: Vec::new(),
        text: lines.finish(),
        entries: vec![entry],
    })
}
