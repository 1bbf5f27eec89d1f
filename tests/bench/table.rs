//! Samples by row and column, printed as medians or sums, with each column's ratio to the first one where that is hade.

use crate::watch::CAP;

pub struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Row>,
}

struct Row {
    label: String,
    decimals: usize,
    sum: bool,
    cells: Vec<Vec<f64>>,
}

impl Table {
    pub fn new(columns: Vec<&'static str>) -> Self {
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, label: &str, decimals: usize) {
        self.declare(label, decimals, false);
    }

    /// A row of counts: the samples of a cell are added up.
    pub fn sum(&mut self, label: &str, decimals: usize) {
        self.declare(label, decimals, true);
    }

    fn declare(&mut self, label: &str, decimals: usize, sum: bool) {
        self.rows.push(Row {
            label: label.to_string(),
            decimals,
            sum,
            cells: vec![Vec::new(); self.columns.len()],
        });
    }

    /// Infinity stands for a wait that reached the cap.
    pub fn add(&mut self, label: &str, column: usize, value: f64) {
        let row = self.rows.iter_mut().find(|row| row.label == label);
        row.expect("every row is declared first").cells[column].push(value);
    }

    /// The sum of a cell of counts so far.
    pub fn count(&self, label: &str, column: usize) -> usize {
        let row = self.rows.iter().find(|row| row.label == label);
        row.map_or(0, |row| row.cells[column].iter().sum::<f64>() as usize)
    }

    /// How many samples of a cell reached the cap.
    pub fn capped(&self, label: &str, column: usize) -> usize {
        let row = self.rows.iter().find(|row| row.label == label);
        row.map_or(0, |row| {
            row.cells[column].iter().filter(|v| v.is_infinite()).count()
        })
    }

    /// How a cell compares with another one of its row.
    pub fn ratio(&self, label: &str, column: usize, other: usize) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.label == label)?;
        let middle = |column: usize| row.middle(row.cells.get(column)?);
        Some(middle(column)? / middle(other)?)
    }

    /// Everything in one line of JSON: a list of rows, each with its samples by column.
    pub fn json(&self) -> String {
        let rows = self
            .rows
            .iter()
            .filter(|row| !row.cells.iter().all(Vec::is_empty));
        let rows = rows.map(|row| {
            let cells = self.columns.iter().zip(&row.cells).map(|(name, cell)| {
                let middle = row.middle(cell).filter(|middle| middle.is_finite());
                let middle = middle.map_or("null".to_string(), |middle| middle.to_string());
                let samples = cell.iter().map(|value| match value.is_finite() {
                    true => value.to_string(),
                    false => "null".to_string(),
                });
                let samples: Vec<String> = samples.collect();
                let samples = samples.join(",");
                format!(r#""{name}":{{"middle":{middle},"samples":[{samples}]}}"#)
            });
            let cells: Vec<String> = cells.collect();
            format!(r#"{{"row":"{}",{}}}"#, row.label, cells.join(","))
        });
        format!("[{}]", rows.collect::<Vec<_>>().join(","))
    }

    /// Rows without any sample are left out.
    pub fn print(&self, expected: usize) {
        let compared = match self.columns.first() {
            Some(&"hade") => &self.columns[1..],
            _ => &[],
        };
        let names = self.columns.iter().map(ToString::to_string);
        let mut lines = vec![vec![String::new()]];
        lines[0].extend(names);
        lines[0].extend(compared.iter().map(|name| format!("{name}/hade")));
        for row in &self.rows {
            if row.cells.iter().all(Vec::is_empty) {
                continue;
            }
            let mut line = vec![row.label.clone()];
            line.extend(row.cells.iter().map(|c| row.text(c, expected)));
            let others = row.cells[1..].iter().take(compared.len());
            line.extend(others.map(|other| ratio(row.middle(other), row.middle(&row.cells[0]))));
            lines.push(line);
        }
        let width = |column: usize| lines.iter().map(|l| l[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
        for line in &lines {
            print!("{:<w$}", line[0], w = widths[0]);
            for (text, w) in line.iter().zip(&widths).skip(1) {
                print!("  {text:>w$}");
            }
            println!();
        }
    }
}

impl Row {
    fn middle(&self, samples: &[f64]) -> Option<f64> {
        match self.sum {
            true => (!samples.is_empty()).then(|| samples.iter().sum()),
            false => median(samples),
        }
    }

    fn text(&self, samples: &[f64], expected: usize) -> String {
        match self.middle(samples) {
            Some(sum) if self.sum => format!("{sum:.*}", self.decimals),
            _ => cell(samples, self.decimals, expected),
        }
    }
}

/// "median (min-max)", and the number of samples only where it differs from the expected one.
pub fn cell(samples: &[f64], decimals: usize, expected: usize) -> String {
    let Some(middle) = median(samples) else {
        return "-".to_string();
    };
    let number = |value: f64| match value.is_finite() {
        true => format!("{value:.decimals$}"),
        false => format!("> {} s", CAP.as_secs()),
    };
    let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
    let most = samples.iter().copied().fold(0.0, f64::max);
    let mut text = match least.is_finite() {
        true => format!("{} ({}-{})", number(middle), number(least), number(most)),
        false => number(middle),
    };
    if samples.len() != expected {
        text += &format!(" n={}", samples.len());
    }
    text
}

fn ratio(peer: Option<f64>, hade: Option<f64>) -> String {
    match (peer, hade) {
        (_, Some(0.0)) => "-".to_string(),
        (Some(peer), Some(hade)) if hade.is_finite() && peer.is_finite() => {
            format!("{:.2}", peer / hade)
        }
        (Some(_), Some(hade)) if hade.is_finite() => {
            format!("> {:.0}", CAP.as_secs_f64() * 1000.0 / hade)
        }
        _ => "-".to_string(),
    }
}

fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}
