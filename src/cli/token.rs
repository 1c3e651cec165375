//! `ringlift token`: manages upload tokens, which permit uploads without the API key.

use std::time::Duration;

use ringlift::{Client, OneLine, UploadToken, UploadTokenQuery};

use super::args::{GlobalArgs, TokenCommand};
use super::client;
use super::console::Console;
use super::events::{CommandEvent, CommandResult, ListEnd, Summary, error_event};
use super::exit::{CommandError, Exit};
use super::page_args::PageArgs;
use super::table::{Align, Table};

pub(super) fn run(command: &TokenCommand, global: &GlobalArgs, console: &Console) -> CommandResult {
    let client = client::connect(global)?;
    let work = async {
        match command {
            TokenCommand::Create { ttl } => create(&client, *ttl, console).await,
            TokenCommand::List { page } => list(&client, *page, console).await,
            TokenCommand::Delete { token } => delete(&client, token, console).await,
        }
    };
    client::block_on(work).map(Some)
}

async fn create(client: &Client, ttl: Option<Duration>, console: &Console) -> Result<Summary, CommandError> {
    let token = client.create_upload_token(ttl).await?;
    console.emit(&CommandEvent::Token { token: &token });
    console.result(token.token.reveal());
    if !console.is_written().await {
        return Err(withdraw(client, &token).await);
    }
    console.note(format_args!("expires: {}", expiry(&token)));
    Ok(Summary::default())
}

/// Deletes a token that could not be written to standard output. Standard error may be logged, and an unknown
/// token would stay valid for its whole lifetime.
async fn withdraw(client: &Client, token: &UploadToken) -> CommandError {
    let what = match client.delete_upload_token(token.token.clone()).await {
        Ok(()) => "it was deleted again".to_owned(),
        Err(error) => format!("it could not be deleted ({error}): `ringlift token list` shows it"),
    };
    let lost = "the upload token was created but could not be written to standard output";
    CommandError::Other(Exit::Failed, format!("{lost}: {what}"))
}

async fn list(client: &Client, page: PageArgs, console: &Console) -> Result<Summary, CommandError> {
    let mut query = UploadTokenQuery::new();
    query.current_page = Some(page.page.into());
    query.page_size = Some(page.page_size.into());
    let page = client.upload_tokens(query).await?;
    let mut table = Table::new([("TOKEN", Align::Left), ("CREATED", Align::Left), ("EXPIRES", Align::Left)]);
    for token in &page.data {
        console.emit(&CommandEvent::Token { token });
        let created = token.created_at.clone().unwrap_or_else(|| "-".to_owned());
        table.row([token.token.reveal().to_owned(), created, expiry(token)]);
    }
    console.result(table);
    console.emit(&CommandEvent::ListEnd(ListEnd {
        listed: page.data.len() as u64,
        more: page.next_page().is_some(),
        next_page: page.next_page(),
        items_total: page.pagination.items_total,
    }));
    if let Some(next) = page.next_page() {
        console.note(format_args!("more with --page {next}"));
    }
    Ok(Summary::default())
}

/// Deletes each token, also after a failure. Tokens are never printed again.
async fn delete(client: &Client, tokens: &[String], console: &Console) -> Result<Summary, CommandError> {
    let mut exits = Vec::new();
    for token in tokens {
        match client.delete_upload_token(token.clone()).await.map_err(CommandError::from) {
            Ok(()) => {
                console.emit(&CommandEvent::Deleted { video_id: None });
                console.note("deleted");
            }
            Err(failure) => {
                console.print_error(&failure);
                console.emit(&CommandEvent::Failed { error: error_event(&failure) });
                exits.push(failure.exit());
            }
        }
    }
    Ok(Summary::from(Exit::of_all(exits)))
}

fn expiry(token: &UploadToken) -> String {
    token.expires_at.as_deref().map_or("never".to_owned(), |time| OneLine(time).to_string())
}
