package docs

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailcutover/test/peers"
)

// setup is what is there before the first command of a page.
type setup struct {
	home  string            // of the reader
	dir   string            // where a page begins
	env   []string          // of the reader's shell
	names map[string]string // words of the page, and what they are here
	port  func(shown string) int
}

// setups are what pages can ask for.
var setups = map[string]func(t *testing.T, s *setup){
	"nothing": func(*testing.T, *setup) {},

	// A directory of the reader's own.
	"empty": func(_ *testing.T, s *setup) { s.dir = s.home },

	// The settings of a node that doesn't run yet, with two platforms that take any mail.
	"node": func(t *testing.T, s *setup) { s.names["relay.example.org:25"], _ = writeNode(t, s, true) },

	// That node, no lab, and a directory service with two users.
	"directory": func(t *testing.T, s *setup) {
		writeNode(t, s, false)
		slapd := peers.StartSlapd(t, peers.SlapdOptions{LDIF: users})
		s.names["ldaps://dc1.example.org:636"] = "ldap://" + slapd.Addr
		s.names["cn=mailcutover,ou=services,dc=example,dc=org"] = peers.SlapdAdmin
		write(t, filepath.Join(s.home, "ad.password"), peers.SlapdPassword+"\n")
	},

	// A node between two Dovecots with mailboxes, one person, and a hook that works until a file
	// named broken is there.
	"mailboxes": func(t *testing.T, s *setup) { writeMailboxes(t, s, "5s", "operations: {mover: [cutover]}\n") },

	// That node, a lab, and a Postfix that has taken its mail to the source so far.
	"postfix": func(t *testing.T, s *setup) {
		source, _ := writeNode(t, s, true)
		mx := peers.StartMX(t, peers.MXOptions{NextHop: source, Settings: map[string]string{"transport_maps": "texthash:$config_directory/transport"}})
		command := mx.Command()
		config := command[len(command)-1]
		for _, arg := range command {
			if _, err := os.Stat(filepath.Join(arg, "main.cf")); err == nil {
				config = arg
			}
		}
		write(t, filepath.Join(config, "transport"), "")
		s.names["mx.example.org:25"] = mx.Addr
		s.names["/etc/postfix"] = config
		s.env = append(s.env, "MAIL_CONFIG="+config)
	},
}

// users are the directory's.
var users = "dn: ou=health,dc=example,dc=org\nobjectClass: organizationalUnit\nou: health\n\n" + user(1, "dora") + user(2, "emil")

func user(n byte, name string) string {
	id := [16]byte{15: n}
	return fmt.Sprintf("dn: cn=%s,ou=health,dc=example,dc=org\nobjectClass: user\ncn: %[1]s\nobjectGUID:: %s\n"+
		"sAMAccountName: %[1]s\nmail: %[1]s@health.example\nproxyAddresses: SMTP:%[1]s@health.example\n"+
		"legacyExchangeDN: /o=Org/ou=First Group/cn=Recipients/cn=%[1]s\nuserAccountControl: 512\n\n",
		name, base64.StdEncoding.EncodeToString(id[:]))
}

// writeNode puts the settings of a node into the reader's directory, with the tokens of Anna,
// Cem and Ute, and starts two platforms.
func writeNode(t *testing.T, s *setup, lab bool) (source, target string) {
	t.Helper()
	s.dir = s.home
	source, target = peers.StartSink(t).Addr, peers.StartSink(t).Addr
	var tokens strings.Builder
	for _, person := range []struct{ name, full, roles string }{
		{"anna", "Anna Berg", "planner, operator"}, {"cem", "Cem Demir", "approver, releaser"}, {"ute", "Ute Roth", "admin"},
	} {
		token := "mc_" + person.name + "_0123456789abcdef0123456789abcdef"
		write(t, filepath.Join(s.home, person.name+".token"), token+"\n")
		fmt.Fprintf(&tokens, "    - {name: %s, person: %s, roles: [%s], sha256: \"%x\"}\n", person.name, person.full, person.roles, sha256.Sum256([]byte(token)))
	}
	write(t, filepath.Join(s.home, "node.yaml"), fmt.Sprintf(`node: mx1.example.org
data: data
lab: %t
listeners:
  - {id: mx, address: "127.0.0.1:%d"}
platforms:
  - {id: exchange, connection_limit: 10s, outside: {hosts: ["%s"], tls: {policy: none}}}
  - {id: ox, connection_limit: 10s, outside: {hosts: ["%s"], tls: {policy: none}}}
routing: {postmaster: dora@health.example}
admin:
  address: "127.0.0.1:%d"
  tokens:
%s`, lab, s.port("2525"), source, target, s.port("8025"), tokens.String()))
	return source, target
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// master lets one account into all mailboxes of a Dovecot.
const master = `
auth_master_user_separator = *
passdb {
  driver = static
  master = yes
  args = password=master
}`

// writeMailboxes puts the settings of a lab into the reader's directory, between two Dovecots
// that are said to end connections after limit.
func writeMailboxes(t *testing.T, s *setup, limit, more string) {
	t.Helper()
	s.dir = s.home
	var platforms strings.Builder
	for _, id := range []string{"exchange", "ox"} {
		d := peers.StartDovecot(t, peers.DovecotOptions{First: master})
		fmt.Fprintf(&platforms, `  - id: %s
    connection_limit: %s
    outside: {protocol: lmtp, hosts: ["%s"], tls: {policy: none}}
    mailboxes: {hosts: ["%s"], tls: {policy: none}, auth: {user: admin, password_file: mailboxes.password}, retry: {first: 100ms, max: 1s}}
    hooks:
      close: {command: ["%s"], attempts: 2}
      open: {command: ["%[5]s"], attempts: 2}
`, id, limit, d.LMTP, d.IMAP, filepath.Join(s.home, "hook"))
		s.names["imap://"+id+".example.org"] = "imap://" + d.IMAP
	}
	write(t, filepath.Join(s.home, "mailboxes.password"), "master\n")
	write(t, filepath.Join(s.home, "hook"), "#!/bin/sh\ntest ! -e "+filepath.Join(s.home, "broken")+" || { echo \"the hook is broken\" >&2; exit 1; }\n"+
		`jq -c 'select(.mailbox) | {mailbox, ok: true}'`+"\n")
	if err := os.Chmod(filepath.Join(s.home, "hook"), 0o755); err != nil {
		t.Fatal(err)
	}
	token := "mc_me_0123456789abcdef0123456789abcdef"
	write(t, filepath.Join(s.home, "me.token"), token+"\n")
	s.env = append(s.env, "MAILCUTOVER_TOKEN_FILE="+filepath.Join(s.home, "me.token"))
	write(t, filepath.Join(s.home, "node.yaml"), fmt.Sprintf(`node: mx1.example.org
data: data
lab: true
approval: none
listeners:
  - {id: mx, address: "127.0.0.1:%d"}
platforms:
%srouting: {postmaster: dora@health.example}
recall: {settle: 1s}
%sadmin:
  address: "127.0.0.1:%d"
  tokens: [{name: me, person: Me Myself, sha256: "%x"}]
`, s.port("2525"), platforms.String(), more, s.port("8025"), sha256.Sum256([]byte(token))))
}
