//! The live page as HTML: fills the embedded file with the state of the run.
//!
//! The page shows the state without a script, and reloads itself. With a script it follows the events.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;

use crate::bulk::JobStateName;

use super::document::{RunDocument, list_json};
use super::limit::{BindingLimit, amount, eta_reason};
use super::parameters::encoded;
use super::view::{JobList, JobListQuery, RunView};

/// Returns a random value that marks the page's own script and style; `None` if the system has no random bytes.
pub(super) fn nonce() -> Option<String> {
    // The specification of content security policies asks for at least 128 bits.
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(STANDARD.encode(bytes))
}

/// Returns the content security policy of the page: nothing from elsewhere, and no script or style but its own.
pub(super) fn policy(nonce: &str) -> String {
    format!(
        "default-src 'self'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; object-src 'none'; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
}

/// Returns the page.
pub(super) fn html(
    view: &RunView,
    history: &[u64],
    query: &JobListQuery,
    list: &Result<JobList, String>,
    nonce: &str,
) -> String {
    let jobs = list.as_ref().map_or_else(|_| "null".to_owned(), list_json);
    let state = json!({ "state": RunDocument::new(view).fields(), "history": history }).to_string();
    let values = [
        ("{{nonce}}", nonce.to_owned()),
        ("{{title}}", escaped(if view.title.is_empty() { "run" } else { &view.title })),
        ("{{state}}", script_data(&state)),
        ("{{jobs}}", script_data(&jobs)),
        ("{{static}}", static_tables(view, query, list)),
    ];
    filled(TEMPLATE, &values)
}

/// Replaces each mark by its value in one pass, so that a mark in a file name stays a file name.
fn filled(template: &str, values: &[(&str, String)]) -> String {
    let mut html = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some(at) = rest.find("{{") {
        html.push_str(&rest[..at]);
        rest = &rest[at..];
        match values.iter().find(|(mark, _)| rest.starts_with(mark)) {
            Some((mark, value)) => {
                html.push_str(value);
                rest = &rest[mark.len()..];
            }
            None => {
                html.push_str("{{");
                rest = &rest[2..];
            }
        }
    }
    html + rest
}

/// Returns the tables for browsers without script.
fn static_tables(view: &RunView, query: &JobListQuery, list: &Result<JobList, String>) -> String {
    let mut html = summary_table(view);
    html += "<h2>Running</h2><table><tr><th>File<th>Sent<th>Size<th>Speed<th>Last progress</tr>";
    for job in &view.running {
        let age = view.at.saturating_duration_since(job.moved_at).as_secs();
        let size = job.total_bytes.map_or("unknown".to_owned(), amount);
        let speed = amount(job.bytes_per_second);
        let sent = amount(job.sent_bytes);
        row(&mut html, &[&job.name, &sent, &size, &format!("{speed}/s"), &format!("{age} s ago")]);
    }
    html += "</table><h2>Last errors</h2><table><tr><th>File<th>Error<th>Advice</tr>";
    for job in &view.failures {
        row(&mut html, &[&job.name, &job.message, job.advice.as_deref().unwrap_or_default()]);
    }
    html += "</table>";
    if let Some(fleet) = &view.fleet {
        let _ =
            write!(html, "<h2>Workers: {}</h2><table><tr><th>Host<th>Worker<th>Heartbeat</tr>", fleet.total);
        for worker in &fleet.workers {
            let age = view.at.saturating_duration_since(worker.heartbeat_at).as_secs();
            let own = if worker.is_self { " (this one)" } else { "" };
            row(&mut html, &[&worker.host, &format!("{}{own}", worker.name), &format!("{age} s ago")]);
        }
        html += "</table>";
    }
    html + &job_table(query, list)
}

fn summary_table(view: &RunView) -> String {
    let totals = &view.totals;
    let total = totals.bytes.total.map_or("unknown".to_owned(), amount);
    let speed = totals.bytes_per_second;
    let [now, minute, run] = [speed.now, speed.minute, speed.run].map(amount);
    let eta = totals.eta.map_or(String::new(), |eta| format!("{} s, ", eta.as_secs()));
    let budgets = &view.client.budgets;
    let left = [("uploads", &budgets.uploads), ("writes", &budgets.writes), ("reads", &budgets.reads)].map(
        |(class, budget)| match budget {
            Some(budget) => format!("{class} {} of {}", budget.left, budget.limit),
            None => format!("{class} unknown"),
        },
    );
    let mut html = "<h2>Run</h2><table>".to_owned();
    for state in JobStateName::ALL {
        row(&mut html, &[state.as_str(), &view.jobs(state).to_string()]);
    }
    row(&mut html, &["acknowledged", &format!("{} of {total}", amount(view.stored_bytes()))]);
    row(&mut html, &["speed", &format!("{now}/s now, {minute}/s in the last minute, {run}/s in the run")]);
    row(&mut html, &["limited by", &BindingLimit::of(view).text]);
    row(&mut html, &["remaining time", &format!("{eta}{}", eta_reason(view))]);
    row(&mut html, &["requests left in this minute", &left.join(", ")]);
    if view.orphans > 0 {
        row(&mut html, &["videos left beside the one of their job", &view.orphans.to_string()]);
    }
    html + "</table>"
}

fn job_table(query: &JobListQuery, list: &Result<JobList, String>) -> String {
    let search = query.search.as_deref().unwrap_or_default();
    let mut html = "<h2>Jobs</h2><form><select name=\"state\"><option value=\"\">every state".to_owned();
    for state in JobStateName::ALL {
        let selected = if query.state == Some(state) { " selected" } else { "" };
        // Writing to a string cannot fail, here and below.
        let _ = write!(html, "<option{selected}>{}", state.as_str());
    }
    let _ = write!(
        html,
        "</select> <input name=\"search\" value=\"{}\"> <button>Search</button></form>",
        escaped(search)
    );
    let list = match list {
        Ok(list) => list,
        Err(message) => return format!("{html}<p>{}</p>", escaped(message)),
    };
    html += "<table><tr><th>State<th>File<th>Size<th>Video<th>Note</tr>";
    for job in &list.jobs {
        let size = job.bytes.map_or(String::new(), amount);
        let [video, message] = [&job.video_id, &job.message].map(|text| text.as_deref().unwrap_or_default());
        row(&mut html, &[job.state.as_str(), &job.path, &size, video, message]);
    }
    html += "</table>";
    if let Some(next) = &list.next {
        let state = query.state.map_or("", JobStateName::as_str);
        let (next, search) = (encoded(next), encoded(search));
        let _ = write!(
            html,
            "<p><a href=\"/?state={state}&amp;search={search}&amp;after={next}\">Next page</a></p>"
        );
    }
    html
}

fn row(html: &mut String, cells: &[&str]) {
    html.push_str("<tr>");
    for cell in cells {
        let _ = write!(html, "<td>{}", escaped(cell));
    }
    html.push_str("</tr>");
}

/// Escapes a text for content and quoted attributes. Characters that hide or reorder others become U+FFFD.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c if c.is_control() => html.push(char::REPLACEMENT_CHARACTER),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                html.push(char::REPLACEMENT_CHARACTER);
            }
            c => html.push(c),
        }
    }
    html
}

/// Escapes JSON for a script element, which ends at the first `</script`.
fn script_data(json: &str) -> String {
    json.replace('<', "\\u003c")
}

const TEMPLATE: &str = include_str!("page.html");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn marks_in_values_stay_as_they_are() {
        let values = [("{{a}}", "{{b}}".to_owned()), ("{{b}}", "x".to_owned())];
        assert_eq!(filled("{{a}} {{c}} {{b}}", &values), "{{b}} {{c}} x");
    }

    proptest! {
        #[test]
        fn no_name_becomes_markup(name in ".*") {
            let html = escaped(&name);
            let is_plain = !html.contains(['<', '>', '"', '\'', '\n', '\u{202e}']);
            prop_assert!(is_plain);
            prop_assert!(!script_data(&json!([name]).to_string()).contains('<'));
        }
    }
}
