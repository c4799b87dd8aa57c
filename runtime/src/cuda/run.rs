//! Submitting a plan's segments to a stream, directly or as captured graphs.

use super::engine::CudaEngine;
use super::error::CudaError;
use super::graphs::Slot;
use super::instance::CudaInstance;
use super::launch::Values;
use super::program::{LaunchSite, Node, Work};
use super::raw::StreamHandle;
use super::steps::{Device, Frame, Steps};

/// What submitting a segment needs.
struct Submission<'a> {
    engine: &'a CudaEngine,
    frame: Frame<'a>,
}

impl Submission<'_> {
    fn segment(&self, works: &[Work], stream: StreamHandle) -> Result<(), CudaError> {
        works.iter().try_for_each(|work| match work {
            Work::Launch(site) => self.launch(site, stream),
            Work::Copy { from, to } => {
                let copies = self.frame.copies(*from, *to)?;
                copies.into_iter().try_for_each(|(from, to, n)| Ok(stream.copy(to, from, n)?))
            }
        })
    }

    fn launch(&self, site: &LaunchSite, stream: StreamHandle) -> Result<(), CudaError> {
        let Some(call) = self.frame.call(site)? else { return Ok(()) };
        let (shared, most) = (call.shared_bytes, self.engine.shared_max[call.entry]);
        if shared > most as usize {
            let why = format!("it takes {shared} bytes of shared memory, {most} are allowed");
            return Err(CudaError::Launch { kernel: site.kernel.clone(), why });
        }
        if call.zeroed > 0 {
            stream.zero(self.frame.workspace, call.zeroed)?;
        }
        let function = self.engine.functions[call.entry];
        let block = call.variant.block;
        Ok(stream.launch(function, call.grid, block, shared as u32, &call.pointers)?)
    }
}

/// An instance on a stream.
struct OnStream<'a> {
    instance: &'a mut CudaInstance,
    engine: &'a CudaEngine,
    stream: StreamHandle,
}

impl Device for OnStream<'_> {
    type Error = CudaError;

    fn frame(&self) -> Frame<'_> {
        self.instance.frame(self.engine)
    }

    fn planned(&self, symbol: usize) -> i64 {
        self.instance.planned(symbol)
    }

    fn set_symbol(&mut self, symbol: usize, value: i64) {
        self.instance.table[symbol] = value;
    }

    fn segment(&mut self, at: usize) -> Result<(), CudaError> {
        self.instance.segment(self.engine, at, self.stream)
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), CudaError> {
        Ok(self.stream.copy_out(into, address)?)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), CudaError> {
        Ok(self.stream.copy_in(address, bytes)?)
    }

    fn copy(&mut self, to: u64, from: u64, bytes: usize) -> Result<(), CudaError> {
        Ok(self.stream.copy(to, from, bytes)?)
    }
}

impl CudaInstance {
    fn frame<'a>(&'a self, engine: &'a CudaEngine) -> Frame<'a> {
        Frame {
            values: Values { plan: &engine.plan, table: &self.table },
            layout: &self.layout,
            addresses: &self.addresses,
            table: self.block.address(),
            workspace: self.block.address() + self.layout.workspace as u64,
        }
    }

    pub(super) fn steps(
        &mut self,
        engine: &CudaEngine,
        steps: &[Node],
        stream: StreamHandle,
    ) -> Result<(), CudaError> {
        let device = OnStream { instance: self, engine, stream };
        Steps { plan: &engine.plan, device }.run(steps)
    }

    /// Runs a segment: directly when its binding is new, captured when it comes again, then replayed.
    fn segment(
        &mut self,
        engine: &CudaEngine,
        at: usize,
        stream: StreamHandle,
    ) -> Result<(), CudaError> {
        self.upload_table(stream)?;
        let works = &engine.program.segments[at];
        match self.graphs.slot(&self.table, &self.key, at) {
            Slot::Captured(graph) => Ok(stream.replay(graph)?),
            slot @ Slot::New => {
                *slot = Slot::Seen;
                Submission { engine, frame: self.frame(engine) }.segment(works, stream)
            }
            Slot::Seen => {
                let submission = Submission { engine, frame: self.frame(engine) };
                let graph = self.stream.capture(|stream| submission.segment(works, stream))?;
                stream.replay(&graph)?;
                *self.graphs.slot(&self.table, &self.key, at) = Slot::Captured(graph);
                Ok(())
            }
        }
    }

    /// Brings the device's symbol table up to date.
    fn upload_table(&mut self, stream: StreamHandle) -> Result<(), CudaError> {
        if self.device_table != self.table {
            let bytes: Vec<u8> = self.table.iter().flat_map(|v| v.to_le_bytes()).collect();
            stream.copy_in(self.block.address(), &bytes)?;
            self.device_table.clone_from(&self.table);
        }
        Ok(())
    }
}
