//! `cofferdam quota`: how much somebody may have at a time.

use crate::cli::args::QuotaCommand;
use crate::cli::failure::{Failure, missing};
use crate::cli::people::{all_pages, print};
use crate::cli::{table, units};
use api::Code;
use api::client::Client;
use api::quota::{QuotaList, QuotaPut, QuotaView};
use std::collections::BTreeMap;
use std::process::ExitCode;

const HEAD: [&str; 4] = ["OF", "LIMIT", "USED", "MOST"];

/// Does what was asked.
pub(super) async fn quota(client: &Client, command: QuotaCommand) -> Result<ExitCode, Failure> {
    let hint = "`cofferdam tenant ls` lists tenants, `cofferdam principal ls` those of your own";
    match command {
        QuotaCommand::Set { of, limits, json } => {
            let put = QuotaPut {
                limits: read(&limits)?,
            };
            let view = client.quota_put(&of, &put).await;
            let view = view.map_err(missing("tenant or principal", &of, hint))?;
            print(json, &view, || Ok(table::layout(&HEAD, lines(&view))))
        }
        QuotaCommand::Ls { json } => {
            let quotas = all_pages(async |query| {
                let page = client.quota_list(&query).await?;
                Ok((page.quotas, page.next))
            })
            .await?;
            let all = QuotaList { quotas, next: None };
            if !json && all.quotas.is_empty() {
                table::note("there are none; `cofferdam quota set TENANT jobs=10` makes one");
                return Ok(ExitCode::SUCCESS);
            }
            let rows = || all.quotas.iter().flat_map(lines).collect();
            print(json, &all, || Ok(table::layout(&HEAD, rows())))
        }
        QuotaCommand::Rm { of, json } => {
            let hint = "`cofferdam quota ls` lists them";
            let view = client.quota_remove(&of).await;
            let view = view.map_err(missing("quota of", &of, hint))?;
            print(json, &view, || Ok(format!("{}\n", name(&view))))
        }
    }
}

/// Reads `LIMIT=MOST`. Which limits there are the server says.
fn read(texts: &[String]) -> Result<BTreeMap<String, Option<u64>>, Failure> {
    let one = |text: &String| {
        let wrong = |why: String| {
            let hint = "write for example jobs=10, memory_bytes=16G or jobs=none";
            Failure::new(Code::InvalidArgument, why).hint(hint)
        };
        let (name, most) = text
            .split_once('=')
            .ok_or_else(|| wrong(format!("`{text}` is not LIMIT=MOST")))?;
        let most = match most {
            "none" => None,
            // Anything else is a number of things, of which none comes in gigabytes.
            most if name.ends_with("_bytes") => Some(units::size(most).map_err(wrong)?),
            most => {
                let is_number = most.bytes().all(|byte| byte.is_ascii_digit());
                let number = most.parse::<u64>().ok().filter(|_| is_number);
                let not = || wrong(format!("`{most}` is not a whole number"));
                Some(number.ok_or_else(not)?)
            }
        };
        Ok((name.to_owned(), most))
    };
    texts.iter().map(one).collect()
}

fn name(view: &QuotaView) -> String {
    match &view.principal {
        None => view.tenant_name.clone(),
        Some(principal) => format!("{}/{principal}", view.tenant_name),
    }
}

fn lines(view: &QuotaView) -> Vec<Vec<String>> {
    let one = |(limit, both): (&String, &api::quota::QuotaLimit)| {
        let show = |amount: u64| match limit.ends_with("_bytes") {
            true => units::show_size(amount),
            false => amount.to_string(),
        };
        vec![name(view), limit.clone(), show(both.used), show(both.most)]
    };
    view.limits.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn limits_are_numbers_sizes_or_none() {
        let all = read(&texts(&["jobs=10", "memory_bytes=2G", "sandboxes=none"])).unwrap();
        assert_eq!(all["jobs"], Some(10));
        assert_eq!(all["memory_bytes"], Some(2 << 30));
        assert_eq!(all["sandboxes"], None);
        for wrong in ["jobs", "jobs=2G", "jobs=-1", "memory_bytes=lots"] {
            assert!(read(&texts(&[wrong])).is_err(), "{wrong}");
        }
    }
}
