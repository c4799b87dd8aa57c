//! Walks over kernel programs: bodies, buffers, symbols, stores and axes, in
//! one place for every anchor.

use super::*;

impl KernelProgram {
    /// Calls `visit` with every body and the number of its axes.
    pub fn visit_bodies<'a>(&'a self, visit: &mut dyn FnMut(&'a Body, usize)) {
        match &self.anchor {
            Anchor::Loops(a) => visit(&a.epilogue.body, a.extents.len()),
            Anchor::Rows(a) => visit(&a.epilogue.body, a.outer.len() + a.inner.len()),
            Anchor::Contract(a) => {
                visit(&a.lhs.body, a.batch.len() + a.m.len() + a.k.len());
                visit(&a.rhs.body, a.batch.len() + a.k.len() + a.n.len());
                visit(&a.epilogue.body, a.batch.len() + a.m.len() + a.n.len());
            }
            Anchor::Conv(a) => {
                visit(&a.input.body, 2 + a.in_spatial.len());
                visit(&a.filter.body, 2 + a.kernel.len());
                visit(&a.epilogue.body, 2 + a.out_spatial.len());
            }
            Anchor::Pool(a) => {
                visit(&a.input.body, a.outer.len() + a.in_spatial.len());
                visit(&a.epilogue.body, a.outer.len() + a.out_spatial.len());
            }
            Anchor::Attend(a) => {
                let b = a.batch.len();
                visit(&a.q.body, b + a.m.len() + a.d.len());
                visit(&a.k.body, b + a.n.len() + a.d.len());
                visit(&a.v.body, b + a.n.len() + a.e.len());
                visit(&a.score.body, b + a.m.len() + a.n.len());
                visit(&a.prob.body, b + a.m.len() + a.n.len());
                visit(&a.epilogue.body, b + a.m.len() + a.e.len());
            }
            Anchor::Scan(a) => {
                visit(&a.input.body, a.outer.len() + 1);
                visit(&a.epilogue.body, a.outer.len() + 1);
            }
            Anchor::Sort(a) => {
                visit(&a.input.body, a.outer.len() + 1);
                visit(&a.epilogue.body, a.outer.len() + 1);
            }
            Anchor::Scatter(a) => {
                if let Some(init) = &a.init {
                    let rank =
                        self.buffers.get(a.store.buffer as usize).map_or(0, |b| b.shape.len());
                    visit(&init.body, rank);
                }
                visit(&a.body, a.updates.len());
            }
            Anchor::Rnn(a) => a.visit_bodies(visit),
        }
    }

    /// Renumbers buffers in every load and store.
    pub fn map_buffers(&mut self, map: &dyn Fn(u32) -> u32) {
        for body in self.bodies_mut() {
            for inst in &mut body.insts {
                if let InstKind::Load(load) = &mut inst.kind {
                    load.buffer = map(load.buffer);
                }
            }
        }
        for store in self.stores_mut() {
            store.buffer = map(store.buffer);
        }
    }

    fn epilogues_mut(&mut self) -> Vec<&mut Epilogue> {
        match &mut self.anchor {
            Anchor::Loops(a) => vec![&mut a.epilogue],
            Anchor::Rows(a) => vec![&mut a.epilogue],
            Anchor::Contract(a) => vec![&mut a.epilogue],
            Anchor::Conv(a) => vec![&mut a.epilogue],
            Anchor::Pool(a) => vec![&mut a.epilogue],
            Anchor::Attend(a) => vec![&mut a.epilogue],
            Anchor::Scan(a) => vec![&mut a.epilogue],
            Anchor::Sort(a) => vec![&mut a.epilogue],
            Anchor::Scatter(_) => Vec::new(),
            Anchor::Rnn(a) => [&mut a.y, &mut a.h, &mut a.c].into_iter().flatten().collect(),
        }
    }

    fn stores_mut(&mut self) -> Vec<&mut Store> {
        if matches!(self.anchor, Anchor::Scatter(_)) {
            let Anchor::Scatter(a) = &mut self.anchor else { return Vec::new() };
            return vec![&mut a.store];
        }
        self.epilogues_mut().into_iter().flat_map(|e| &mut e.stores).collect()
    }

    fn bodies_mut(&mut self) -> Vec<&mut Body> {
        // Operands and epilogues are separate fields of each anchor.
        match &mut self.anchor {
            Anchor::Loops(a) => vec![&mut a.epilogue.body],
            Anchor::Rows(a) => vec![&mut a.epilogue.body],
            Anchor::Contract(a) => vec![&mut a.lhs.body, &mut a.rhs.body, &mut a.epilogue.body],
            Anchor::Conv(a) => vec![&mut a.input.body, &mut a.filter.body, &mut a.epilogue.body],
            Anchor::Pool(a) => vec![&mut a.input.body, &mut a.epilogue.body],
            Anchor::Attend(a) => vec![
                &mut a.q.body,
                &mut a.k.body,
                &mut a.v.body,
                &mut a.score.body,
                &mut a.prob.body,
                &mut a.epilogue.body,
            ],
            Anchor::Scan(a) => vec![&mut a.input.body, &mut a.epilogue.body],
            Anchor::Sort(a) => vec![&mut a.input.body, &mut a.epilogue.body],
            Anchor::Scatter(a) => {
                a.init.iter_mut().map(|o| &mut o.body).chain([&mut a.body]).collect()
            }
            Anchor::Rnn(a) => {
                let optional = [&mut a.r_bias, &mut a.c0, &mut a.peephole, &mut a.lengths];
                let operands = optional.into_iter().flatten().map(|o| &mut o.body);
                let results =
                    [&mut a.y, &mut a.h, &mut a.c].into_iter().flatten().map(|e| &mut e.body);
                let fixed = [&mut a.x.body, &mut a.r.body, &mut a.h0.body];
                fixed.into_iter().chain(operands).chain(results).collect()
            }
        }
    }

    /// Every shape symbol that the program needs at run time, by name.
    pub fn symbols(&self) -> Vec<Symbol> {
        let mut out = std::collections::BTreeSet::new();
        for buffer in &self.buffers {
            buffer.shape.iter().chain(&buffer.strides).for_each(|d| d.collect_symbols(&mut out));
        }
        for dim in self.extents() {
            dim.collect_symbols(&mut out);
        }
        self.visit_bodies(&mut |body, _| body.dims().for_each(|d| d.collect_symbols(&mut out)));
        for store in self.stores() {
            store.index.iter().for_each(|d| d.collect_symbols(&mut out));
        }
        out.into_iter().filter(|s| as_axis(s).is_none() && as_value(s).is_none()).collect()
    }

    /// Every store of the program.
    pub fn stores(&self) -> Vec<&Store> {
        match &self.anchor {
            Anchor::Loops(a) => a.epilogue.stores.iter().collect(),
            Anchor::Rows(a) => a.epilogue.stores.iter().collect(),
            Anchor::Contract(a) => a.epilogue.stores.iter().collect(),
            Anchor::Conv(a) => a.epilogue.stores.iter().collect(),
            Anchor::Pool(a) => a.epilogue.stores.iter().collect(),
            Anchor::Attend(a) => a.epilogue.stores.iter().collect(),
            Anchor::Scan(a) => a.epilogue.stores.iter().collect(),
            Anchor::Sort(a) => a.epilogue.stores.iter().collect(),
            Anchor::Scatter(a) => vec![&a.store],
            Anchor::Rnn(a) => {
                [&a.y, &a.h, &a.c].into_iter().flatten().flat_map(|e| &e.stores).collect()
            }
        }
    }

    /// Every extent and offset of the anchor.
    pub fn extents(&self) -> Vec<&Dim> {
        match &self.anchor {
            Anchor::Loops(a) => a.extents.iter().collect(),
            Anchor::Rows(a) => a.outer.iter().chain(&a.inner).collect(),
            Anchor::Contract(a) => a.batch.iter().chain(&a.m).chain(&a.n).chain(&a.k).collect(),
            Anchor::Conv(a) => [&a.batch, &a.in_channels, &a.out_channels]
                .into_iter()
                .chain(&a.in_spatial)
                .chain(&a.out_spatial)
                .chain(&a.kernel)
                .chain(&a.pad_low)
                .collect(),
            Anchor::Pool(a) => a
                .outer
                .iter()
                .chain(&a.in_spatial)
                .chain(&a.out_spatial)
                .chain(&a.pad_low)
                .chain(&a.pad_high)
                .collect(),
            Anchor::Attend(a) => a
                .batch
                .iter()
                .chain(&a.m)
                .chain(&a.n)
                .chain(&a.d)
                .chain(&a.e)
                .chain(&a.causal)
                .collect(),
            Anchor::Scan(a) => a.outer.iter().chain([&a.extent]).collect(),
            Anchor::Sort(a) => a.outer.iter().chain([&a.extent, &a.k]).collect(),
            Anchor::Scatter(a) => a.updates.iter().collect(),
            Anchor::Rnn(a) => vec![&a.time, &a.batch, &a.hidden],
        }
    }

    /// The family that implements the anchor.
    pub fn family(&self) -> &'static str {
        match &self.anchor {
            Anchor::Loops(_) => "loops",
            Anchor::Rows(_) => "rows",
            Anchor::Contract(_) => "contract",
            Anchor::Conv(_) => "conv",
            Anchor::Pool(_) => "pool",
            Anchor::Attend(_) => "attend",
            Anchor::Scan(_) => "scan",
            Anchor::Sort(_) => "sort",
            Anchor::Scatter(_) => "scatter",
            Anchor::Rnn(_) => "rnn",
        }
    }
}

impl Rnn {
    fn visit_bodies<'a>(&'a self, visit: &mut dyn FnMut(&'a Body, usize)) {
        visit(&self.x.body, 3);
        visit(&self.r.body, 2);
        let optional = [(&self.r_bias, 1), (&self.c0, 2), (&self.peephole, 1), (&self.lengths, 1)];
        for (operand, axes) in optional {
            if let Some(operand) = operand {
                visit(&operand.body, axes);
            }
        }
        visit(&self.h0.body, 2);
        for activation in &self.activations {
            visit(&activation.body, 0);
        }
        for (epilogue, axes) in [(&self.y, 3), (&self.h, 2), (&self.c, 2)] {
            if let Some(epilogue) = epilogue {
                visit(&epilogue.body, axes);
            }
        }
    }
}

impl Body {
    /// Appends an instruction and returns its index.
    pub fn push(&mut self, dtype: DType, kind: InstKind) -> u32 {
        let inst = Inst { dtype, kind };
        if let Some(at) = self.insts.iter().position(|i| *i == inst) {
            return at as u32;
        }
        self.insts.push(inst);
        (self.insts.len() - 1) as u32
    }

    /// The dtype of a result.
    pub fn dtype(&self, value: u32) -> DType {
        self.insts[value as usize].dtype
    }

    /// Every index expression in the body.
    pub fn dims(&self) -> impl Iterator<Item = &Dim> {
        self.insts.iter().flat_map(|inst| -> Vec<&Dim> {
            match &inst.kind {
                InstKind::Index(dim) => vec![dim],
                InstKind::Load(load) => load
                    .index
                    .iter()
                    .chain(load.guards.iter().flat_map(|g| [&g.value, &g.below]))
                    .collect(),
                _ => Vec::new(),
            }
        })
    }

    /// The same code over other axes: axis `n` becomes `axes(n)`.
    #[must_use]
    pub fn with_axes(&self, axes: &dyn Fn(usize) -> Dim) -> Body {
        let dim = |dim: &Dim| replace_axes(dim, axes);
        let inst = |inst: &Inst| {
            let kind = match &inst.kind {
                InstKind::Index(index) => InstKind::Index(dim(index)),
                InstKind::Load(load) => InstKind::Load(Load {
                    buffer: load.buffer,
                    index: load.index.iter().map(dim).collect(),
                    guards: load
                        .guards
                        .iter()
                        .map(|g| Guard { value: dim(&g.value), below: dim(&g.below) })
                        .collect(),
                    otherwise: load.otherwise,
                }),
                other => other.clone(),
            };
            Inst { dtype: inst.dtype, kind }
        };
        Body { insts: self.insts.iter().map(inst).collect() }
    }
}

fn replace_axes(dim: &Dim, axes: &dyn Fn(usize) -> Dim) -> Dim {
    dim.substitute(&|symbol| as_axis(symbol).map(axes))
}

impl Operand {
    /// As [`Body::with_axes`].
    #[must_use]
    pub fn with_axes(&self, axes: &dyn Fn(usize) -> Dim) -> Operand {
        Operand { body: self.body.with_axes(axes), value: self.value }
    }
}

impl Epilogue {
    /// As [`Body::with_axes`], stores included.
    #[must_use]
    pub fn with_axes(&self, axes: &dyn Fn(usize) -> Dim) -> Epilogue {
        let stores = self.stores.iter().map(|store| Store {
            buffer: store.buffer,
            index: store.index.iter().map(|d| replace_axes(d, axes)).collect(),
            value: store.value,
        });
        Epilogue { body: self.body.with_axes(axes), stores: stores.collect() }
    }
}
