//! The name that somebody may have meant: for keys, variables, options and commands.
#![forbid(unsafe_code)]

/// The name that someone may have meant by `word`, if one is close. Case, the `app.` in front, and
/// `-` for `_` do not count.
pub fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| {
        let text = text.to_lowercase().replace('-', "_");
        let bare = text
            .strip_prefix("app.")
            .or_else(|| text.strip_prefix("app_"));
        // Dashes before an option say nothing of which one it is.
        let bare = bare.unwrap_or(&text).trim_start_matches('_');
        bare.chars().collect::<Vec<char>>()
    };
    let word = plain(word);
    if word.len() > 64 {
        return None;
    }
    names
        .map(|name| {
            let plain = plain(name);
            (distance(&word, &plain), plain.len().max(word.len()), name)
        })
        .filter(|(distance, length, _)| distance * 3 <= *length)
        .min_by_key(|(distance, _, _)| *distance)
        .map(|(_, _, name)| name)
}

/// Letters to add, drop, change or swap with their neighbour (optimal string alignment).
pub fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
