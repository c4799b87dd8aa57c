//! Text under construction, line by line, with indentation.

/// An indented text.
#[derive(Debug, Default, Clone)]
pub struct Lines {
    text: String,
    depth: usize,
}

impl Lines {
    /// Empty text whose lines start at `depth` levels of two spaces.
    pub fn at_depth(depth: usize) -> Lines {
        Lines { text: String::new(), depth }
    }

    /// Adds one line.
    pub fn line(&mut self, line: impl AsRef<str>) {
        let line = line.as_ref();
        if !line.is_empty() && !line.starts_with('#') {
            self.text.push_str(&"  ".repeat(self.depth));
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Adds a line and indents what follows.
    pub fn open(&mut self, line: impl AsRef<str>) {
        self.line(line);
        self.depth += 1;
    }

    /// Ends an indented part with a line.
    pub fn close(&mut self, line: impl AsRef<str>) {
        self.depth = self.depth.saturating_sub(1);
        self.line(line);
    }

    /// Adds text that already ends its lines, indented like the rest.
    pub fn text(&mut self, text: &str) {
        text.lines().for_each(|line| self.line(line));
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }
}
