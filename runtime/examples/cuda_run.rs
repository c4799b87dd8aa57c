//! Runs an engine file on a GPU and compares with expected outputs:
//! `cuda_run ENGINE.tgc FOLDER [RUNS] [LIMIT]`, where FOLDER holds `input_0.npy` … in
//! the order of the signature and `output_0.npy` …. The first run launches
//! kernels one by one, the second captures graphs, later ones replay them;
//! every run is compared. Exit status 1 when an output is off by more than
//! LIMIT (1e-3) times its largest magnitude.

use std::fs;
use std::path::Path;
use std::time::Instant;

use tgc_ir::{DType, Tensor};
use tgc_runtime::cuda::{CudaEngine, CudaInstance, Module, Options, devices, runs_on};
use tgc_runtime::engine::Engine;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [engine, folder, rest @ ..] = arguments.as_slice() else {
        return Err("usage: cuda_run ENGINE.tgc FOLDER [RUNS] [LIMIT]".into());
    };
    let runs = rest.first().map_or(Ok(3), |n| n.parse::<usize>())?;
    let limit = rest.get(1).map_or(Ok(1e-3), |n| n.parse::<f64>())?;
    let inputs = numbered(Path::new(folder), "input")?;
    let expected = numbered(Path::new(folder), "output")?;
    let mut instance = open(&Engine::load(Path::new(engine))?)?;
    let mut is_right = true;
    for run in 0..runs {
        let start = Instant::now();
        let outputs = instance.run(&inputs)?;
        let ms = start.elapsed().as_secs_f64() * 1e3;
        let errors = compare(&outputs, &expected)?;
        is_right &= errors.iter().all(|e| *e <= limit);
        let shown: Vec<String> = errors.iter().map(|e| format!("{e:.1e}")).collect();
        println!("run {run}: {ms:.1} ms, errors by output {}", shown.join(", "));
    }
    println!(
        "{} bytes on the device, {} graphs captured",
        instance.device_bytes(),
        instance.captured_graphs()
    );
    if is_right { Ok(()) } else { Err("an output is off".into()) }
}

/// The plan of the most special target that the first GPU runs.
fn open(engine: &Engine) -> Result<CudaInstance, Failure> {
    let gpu = devices()?.into_iter().next().ok_or("there is no GPU")?;
    println!(
        "{} ({}.{}, {} MiB), driver {}",
        gpu.name,
        gpu.capability.0,
        gpu.capability.1,
        gpu.memory_bytes >> 20,
        gpu.driver_version
    );
    let fitting = engine.plans.iter().rev().find(|(target, _)| runs_on(target, gpu.capability));
    let (target, plan) = fitting.ok_or("the engine holds no plan that this GPU runs")?;
    println!("plan for {target}: {} kernels, {} steps", plan.kernels.len(), plan.steps.len());
    let file = |path: String| engine.files.get(&path).cloned();
    let unit = |n: usize| {
        let name = format!("{target}/unit_{n}");
        let (cubin, ptx) = (file(format!("{name}.cubin")), file(format!("{name}.ptx")));
        file(format!("{name}.cu")).map(|_| Module {
            name,
            cubin: cubin.unwrap_or_default(),
            ptx: ptx.unwrap_or_default(),
        })
    };
    let modules: Vec<Module> = (0..).map_while(unit).collect();
    let options = Options::default();
    let cuda = CudaEngine::new(plan.clone(), engine.weights.clone(), modules, options)?;
    Ok(CudaInstance::new(&cuda)?)
}

fn numbered(folder: &Path, kind: &str) -> Result<Vec<Tensor>, Failure> {
    let paths = (0..).map(|n| folder.join(format!("{kind}_{n}.npy")));
    paths.take_while(|path| path.exists()).map(|path| read_npy(&fs::read(path)?)).collect()
}

/// A C-order little-endian array (NumPy format 1 and 2).
fn read_npy(bytes: &[u8]) -> Result<Tensor, Failure> {
    let (length, start) = match bytes.get(6) {
        Some(1) => (usize::from(u16::from_le_bytes(bytes[8..10].try_into()?)), 10),
        _ => (u32::from_le_bytes(bytes[8..12].try_into()?) as usize, 12),
    };
    let header = std::str::from_utf8(&bytes[start..start + length])?;
    let after = |key: &str| header.split_once(key).map(|(_, rest)| rest).ok_or("a short header");
    let code = after("'descr': '")?.split('\'').next().unwrap_or_default();
    let dtype = match code {
        "|b1" => DType::Bool,
        "|u1" => DType::U8,
        "|i1" => DType::I8,
        "<i4" => DType::I32,
        "<i8" => DType::I64,
        "<f2" => DType::F16,
        "<f4" => DType::F32,
        "<f8" => DType::F64,
        other => return Err(format!("element type {other} is not read here").into()),
    };
    if after("'fortran_order': ")?.starts_with("True") {
        return Err("column-major order is not read here".into());
    }
    let shape = after("'shape': (")?.split(')').next().unwrap_or_default();
    let shape = shape.split(',').map(str::trim).filter(|s| !s.is_empty());
    let shape = shape.map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    Ok(Tensor::new(dtype, shape, bytes[start + length..].to_vec().into())?)
}

/// Per output, the largest difference as a share of its largest magnitude.
fn compare(found: &[Tensor], expected: &[Tensor]) -> Result<Vec<f64>, Failure> {
    if found.len() != expected.len() {
        let (f, e) = (found.len(), expected.len());
        return Err(format!("there are {f} outputs instead of {e}").into());
    }
    let error = |(n, (found, expected)): (usize, (&Tensor, &Tensor))| {
        if found.shape() != expected.shape() || found.dtype() != expected.dtype() {
            let (f, e) = (found.shape(), expected.shape());
            return Err(format!("output {n} is {f:?} instead of {e:?}").into());
        }
        let (found, expected) = (found.to_f64(), expected.to_f64());
        let largest = expected.iter().filter(|v| v.is_finite()).fold(0f64, |m, v| m.max(v.abs()));
        let differing =
            found.iter().zip(&expected).filter(|(f, e)| f != e && !(f.is_nan() && e.is_nan()));
        let share = |(f, e): (&f64, &f64)| (f - e).abs() / largest.max(f64::MIN_POSITIVE);
        // NaN against a number counts as infinitely wrong.
        let share = differing.map(share).map(|s| if s.is_nan() { f64::INFINITY } else { s });
        Ok(share.fold(0.0, f64::max))
    };
    found.iter().zip(expected).enumerate().map(error).collect()
}
