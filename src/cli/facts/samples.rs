//! A page of metrics, as Prometheus' text format has it.

use std::collections::BTreeMap;

/// A family's samples, by name; each with its labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::cli) struct Samples(BTreeMap<String, Vec<(Labels, f64)>>);

/// Labels by name.
pub(in crate::cli) type Labels = BTreeMap<String, String>;

impl Samples {
    /// Reads a page; what is no sample is passed over.
    pub(in crate::cli) fn parse(page: &str) -> Self {
        let mut found: BTreeMap<String, Vec<(Labels, f64)>> = BTreeMap::new();
        for (name, labels, value) in page.lines().filter_map(sample) {
            found.entry(name.to_owned()).or_default().push((labels, value));
        }
        Self(found)
    }

    /// All samples of a name.
    pub(in crate::cli) fn all(&self, name: &str) -> &[(Labels, f64)] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The only sample of a name.
    pub(in crate::cli) fn value(&self, name: &str) -> Option<f64> {
        self.all(name).first().map(|(_, value)| *value)
    }

    /// The sum over the samples of a name whose labels fit.
    pub(in crate::cli) fn sum(&self, name: &str, fits: impl Fn(&Labels) -> bool) -> f64 {
        self.all(name).iter().filter(|(labels, _)| fits(labels)).map(|(_, value)| value).sum()
    }
}

fn sample(line: &str) -> Option<(&str, Labels, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at_checked(end)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Labels::new(), rest),
    };
    // A time stamp may follow.
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some((name, labels, value))
}

/// Labels up to the closing brace, and what is behind it.
fn labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut found = Labels::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((found, rest));
        }
        let (name, behind) = rest.split_once("=\"")?;
        let (value, behind) = quoted(behind)?;
        let _ = found.insert(name.to_owned(), value);
        rest = behind;
    }
}

/// A label's value up to its closing quote, and what is behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read() {
        let page = "# TYPE a counter\na_total{x=\"1\",y=\"q\\\"}\\\\\\n\"} 2\na_total{x=\"2\"} 3.5\nb 7 1700000000\nrubbish\nc{ 1\n";
        let samples = Samples::parse(page);
        assert_eq!(samples.value("b"), Some(7.0));
        assert_eq!(samples.all("a_total").len(), 2);
        assert_eq!(samples.all("a_total")[0].0["y"], "q\"}\\\n");
        assert_eq!(samples.sum("a_total", |labels| labels["x"] == "2"), 3.5);
        assert_eq!(samples.value("c"), None);
    }
}
