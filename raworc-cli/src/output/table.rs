//! Tables: fitted to the terminal for people, with tabs for nobody: columns stay aligned in a pipe too.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table as Grid};

use super::{Console, Ink};

/// A table of texts.
#[derive(Debug, Clone)]
pub struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one.
    #[must_use]
    pub fn new<const N: usize>(headers: [&'static str; N]) -> Self {
        Self { headers: headers.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// The table as text, each line with its line break.
    ///
    /// On a terminal, cells are wrapped to its width; in a pipe, every row is one line.
    #[must_use]
    pub fn render(&self, console: &Console) -> String {
        let mut grid = Grid::new();
        grid.load_style(NOTHING);
        grid.set_content_arrangement(if console.out_is_terminal {
            ContentArrangement::Dynamic
        } else {
            ContentArrangement::Disabled
        });
        grid.set_header(self.headers.iter().map(|header| console.out.paint(Ink::Bold, header)));
        for row in &self.rows {
            grid.add_row(row);
        }
        for column in grid.column_iter_mut() {
            column.set_padding((0, 2));
        }
        grid.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::GlobalArgs;

    #[test]
    fn columns_are_aligned_and_rows_stay_whole_in_a_pipe() {
        let mut table = Table::new(["NAME", "STATE"]);
        table.row(["a".into(), "idle".into()]);
        table.row(["long-name".into(), "x".repeat(300)]);
        let text = table.render(&Console { out_is_terminal: false, ..Console::new(&GlobalArgs::default()) });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "NAME       STATE");
        assert_eq!(lines[1], "a          idle");
        assert_eq!(lines.len(), 3);
    }
}
