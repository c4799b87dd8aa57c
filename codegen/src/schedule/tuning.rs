//! The tuning file: one JSON object a line, predicted and measured time of a configuration of a kernel.
//!
//! Plain data and its text form; knows no file and no clock.

use serde::{Deserialize, Serialize};

/// One configuration of one kernel on one device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TuningRecord {
    /// Device name of the device table.
    pub device: String,
    /// Kernel family.
    pub family: String,
    /// What identifies the work: extents and element types, for example `f16 1x128x768x768`.
    pub key: String,
    /// Tile choice as printed in the kernel's header.
    pub configuration: String,
    /// Predicted time, nanoseconds.
    pub predicted_ns: u64,
    /// Measured time, nanoseconds, when a device was at hand.
    pub measured_ns: Option<u64>,
}

/// A line of a tuning file is no record.
#[derive(Debug, thiserror::Error)]
#[error("tuning file, line {line}: {source}")]
pub struct TuningError {
    /// Line number, from one.
    pub line: usize,
    /// What the reader says.
    source: serde_json::Error,
}

/// The text of records, one line each.
pub fn write_records(records: &[TuningRecord]) -> String {
    let line = |record: &TuningRecord| {
        serde_json::to_string(record).expect("strings and integers always have a JSON form") + "\n"
    };
    records.iter().map(line).collect()
}

/// Reads records; empty lines are skipped.
///
/// # Errors
/// [`TuningError`] with the line of the first text that is no record.
pub fn read_records(text: &str) -> Result<Vec<TuningRecord>, TuningError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|source| TuningError { line: at + 1, source })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_and_errors_name_the_line() {
        let record = TuningRecord {
            device: "h200-sxm".into(),
            family: "contract".into(),
            key: "f16 1x128x768x768".into(),
            configuration: "64x64x32".into(),
            predicted_ns: 3800,
            measured_ns: None,
        };
        let text = write_records(&[record.clone(), record.clone()]);
        assert_eq!(read_records(&text).unwrap(), [record.clone(), record]);
        assert_eq!(read_records("\n{}\n").unwrap_err().line, 2);
    }
}
