package config

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"mailcutover/rollback/mailstore"
)

// What stands in a file reaches the mailboxes.
func TestMailboxOptions(t *testing.T) {
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("t0ken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := mustLoad(t, write(t, `node: mx1.example.org
installation: here
listeners:
  - {id: mx, address: ":25"}
platforms:
  - id: exchange
    outside: {hosts: ["exchange.example.org:25"]}
    imap: {hosts: ["exchange.example.org:993"], tls: {implicit: true}}
    mailboxes: {auth: {mode: delegated, user: 'EXAMPLE\svc', password_env: SVC, form: '{user}\{login}'}, not_mail: [Kalender], rate: 1MiB/s, message_size: 36MiB}
  - id: ox
    outside: {protocol: lmtp, hosts: ["127.0.0.1:24"]}
    mailboxes: {hosts: ["127.0.0.1:143"], tls: {policy: none}, auth: {user: admin, password_env: SVC, separator: "*"}}
  - id: cloud
    outside: {hosts: ["cloud.example.org:25"]}
    mailboxes: {hosts: ["cloud.example.org:993"], tls: {implicit: true}, auth: {mode: oauth, token: {file: `+token+`}}}
routing: {postmaster: postmaster@example.org}
recall: {folders: [{role: archive, names: [Altablage]}]}
`), "SVC=secret")
	var all []mailstore.Options
	for i := range cfg.Platforms {
		o, err := cfg.MailboxOptions(&cfg.Platforms[i], slog.Default())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := mailstore.New(o); err != nil {
			t.Error(err)
		}
		if o.Installation != "here" || o.Connections != 8 || len(o.Names[mailstore.Archive]) != 1 {
			t.Errorf("%s: %+v", o.Platform, o)
		}
		all = append(all, o)
	}
	exchange, ox, cloud := all[0], all[1], all[2]
	if exchange.Hosts[0] != "exchange.example.org:993" || !exchange.Implicit || exchange.TLS("exchange.example.org:993").ServerName != "exchange.example.org" ||
		exchange.Access.Mode != mailstore.ModeDelegated || exchange.Access.Password != "secret" || exchange.Bytes != 1<<20 || exchange.MessageSize != 36<<20 || len(exchange.NotMail) != 1 {
		t.Errorf("%+v", exchange)
	}
	if ox.TLS != nil || ox.Access.Mode != mailstore.ModeMasterName {
		t.Errorf("%+v", ox)
	}
	if got, err := cloud.Access.Token.Token(t.Context(), ""); err != nil || got != "t0ken" || cloud.Access.Mode != mailstore.ModeOAuth {
		t.Errorf("%q, %v, %+v", got, err, cloud)
	}
}
