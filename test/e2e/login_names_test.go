package e2e

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailcutover/rollback/operation"
)

// trusted is an address of this host from which failed logins don't count.
const trusted = "127.9.0.1"

// marker logs in with LOGIN, or with AUTHENTICATE PLAIN where there is a name to act for, and
// returns whom the platform took it for: the platform's id and the name that it was told. Else it
// returns the refusal's begin.
func (f *loginFront) marker(t *testing.T, from, user, authorize, password string) string {
	t.Helper()
	conn, err := f.dialLogin(t.Context(), f.imaps, from)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	say := func(format string, args ...any) {
		if _, err := fmt.Fprintf(conn, format, args...); err != nil {
			t.Fatal(err)
		}
	}
	if authorize == "" {
		say("a LOGIN {%d+}\r\n%s {%d+}\r\n%s\r\n", len(user), user, len(password), password)
	} else {
		say("a AUTHENTICATE PLAIN %s\r\n", plainFor(authorize, user, password))
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("%q: %v", user, err)
		}
		if !strings.HasPrefix(line, "a ") {
			continue
		}
		if !strings.HasPrefix(line, "a OK") {
			words := strings.Fields(line)
			return strings.Join(words[1:min(3, len(words))], " ")
		}
		break
	}
	say("b SELECT INBOX\r\nc FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT)]\r\nd LOGOUT\r\n")
	rest, err := io.ReadAll(in)
	if _, after, ok := strings.Cut(string(rest), "Subject: "); ok {
		subject, _, _ := strings.Cut(after, "\r\n")
		return subject
	}
	t.Fatalf("%q: no marker in %q, %v", user, rest, err)
	return ""
}

// A name in any of its forms is one mailbox, on the platform where that mailbox is, and the
// platform is told what the table has for it; or it is refused.
func TestLoginNames(t *testing.T) {
	t.Parallel()
	f := startLoginFront(t, loginSetup{logins: "  failures: {delay: 1ms, max_delay: 1ms}\n  domains: [{name: AMT, suffix: names.example}, {name: BARE}]\n"})
	f.addAgency("names")
	f.addAgency("others")
	f.importList(listHeader + loginRow("names", "anna", "anna.berg@names.example", "a.berg") +
		strings.Replace(loginRow("names", "info", "", "info"), atExchange("names", "info"), "info", 1) + loginRow("others", "anna", "", ""))
	for platform, logins := range map[*loginPlatform][]string{
		f.exchange: {`AMT\anna.names`, "info", `AMT\anna.names\info`, `AMT\anna.others`},
		f.ox:       {"anna@names.example", "info@names.example", "anna@names.example/info@names.example"},
	} {
		for _, login := range logins {
			platform.mark(t, login)
		}
	}
	const (
		own, shared = `exchange amt\anna.names`, `exchange amt\anna.names\info`
		cannot      = "NO [CANNOT]"
		unavailable = "NO [UNAVAILABLE]"
	)
	cases := []struct{ user, authorize, want string }{
		{"anna@names.example", "", own},
		{"ANNA@Names.Example", "", own},
		{"anna+news@names.example", "", own},
		{"anna.berg@names.example", "", own},
		{"a.berg", "", own},
		{"A.Berg", "", own},
		{`AMT\anna`, "", own},
		{`amt\ANNA`, "", own},
		{`BARE\a.berg`, "", own},
		{"anna@names.example", "anna.berg@names.example", own},
		{"info@names.example", "", "exchange info"},
		{"anna@others.example", "", `exchange amt\anna.others`},
		// Another's mailbox, by what the platforms call it.
		{"anna@names.example/info@names.example", "", shared},
		{`AMT\anna\info`, "", shared},
		{"a.berg", "info@names.example", shared},
		// No names.
		{`AMT\anna.names`, "", unavailable}, // only a platform calls it that
		{`WHO\anna`, "", unavailable},
		{"nobody@names.example", "", unavailable},
		{"anna@names.example", "nobody@names.example", unavailable},
		{"anna@nowhere.example", "", unavailable},
		{"anna@names.example*admin", "", cannot},
		{"anna%admin@names.example", "", cannot},
		{"*", "", cannot},
		{"*)(uid=*))(|(uid=*", "", cannot},
		{"anna@names.example ", "", cannot},
		{"anna\u200b@names.example", "", cannot},
		{"anna\xff@names.example", "", cannot},
		{"anna@names.example", "x*admin", cannot},
	}
	for _, c := range cases {
		if got := f.marker(t, trusted, c.user, c.authorize, "secret"); got != c.want {
			t.Errorf("%q for %q: %q, want %q", c.user, c.authorize, got, c.want)
		}
	}
	f.mustSwitch(operation.Cutover, "names")
	moved := map[string]string{
		own: "ox anna@names.example", shared: "ox anna@names.example/info@names.example", "exchange info": "ox info@names.example",
	}
	for _, c := range cases {
		want := c.want
		if there, ok := moved[want]; ok {
			want = there
		}
		if got := f.marker(t, trusted, c.user, c.authorize, "secret"); got != want {
			t.Errorf("after the cutover, %q for %q: %q, want %q", c.user, c.authorize, got, want)
		}
	}
}

// Wrong passwords are held back and limited by name and net; nobody else is locked out, and no
// secret is left anywhere.
func TestWrongPasswords(t *testing.T) {
	t.Parallel()
	f := startLoginFront(t, loginSetup{logins: "  failures: {delay: 100ms, max_delay: 200ms, per_name: 4, per_net: 8, window: 10m}\n"})
	locals := []string{"anna", "bert", "cora", "dora", "emil", "fred", "gabi", "hans", "inge", "jens"}
	f.addAgency("names")
	rows := listHeader
	for _, local := range locals {
		rows += loginRow("names", local, "", "")
	}
	f.importList(rows)
	for _, local := range []string{"anna", "inge", "jens"} {
		f.exchange.mark(t, atExchange("names", local))
	}
	const wrong, right, limit = "NO [AUTHENTICATIONFAILED]", `exchange amt\anna.names`, "NO [LIMIT]"
	const anna = "anna@names.example"
	canary := 0
	fail := func(from, user string) string {
		t.Helper()
		canary++
		return f.marker(t, from, user, "", fmt.Sprintf("canary-%d-2c9d41", canary))
	}
	began := time.Now()
	for i := range 4 {
		if got := fail("127.2.0.1", anna); got != wrong {
			t.Fatalf("wrong password %d: %q", i+1, got)
		}
	}
	if took := time.Since(began); took < 700*time.Millisecond {
		t.Errorf("four wrong passwords are answered within %s", took)
	}
	asked := f.exchange.sentinel(t)
	for _, name := range []string{anna, `ANNA@names.example`} {
		if got := f.marker(t, "127.2.0.2", name, "", "secret"); got != limit {
			t.Errorf("the right password from the net that guessed: %q", got)
		}
	}
	if seen := f.exchange.loginsOf("names", asked, f.exchange.sentinel(t)); len(seen) > 0 {
		t.Errorf("the platform was asked all the same: %q", seen)
	}
	for _, from := range []string{"127.3.0.1", trusted} {
		if got := f.marker(t, from, anna, "", "secret"); got != right {
			t.Errorf("from %s: %q", from, got)
		}
	}
	// A net that guesses with many names.
	for i := range 8 {
		if got := fail("127.4.0.1", locals[i]+"@names.example"); got != wrong {
			t.Errorf("wrong password for %s: %q", locals[i], got)
		}
	}
	if got := f.marker(t, "127.4.0.9", "inge@names.example", "", "secret"); got != limit {
		t.Errorf("another name of the net that guessed: %q", got)
	}
	if got := f.marker(t, "127.4.1.9", "inge@names.example", "", "secret"); got != `exchange amt\inge.names` {
		t.Errorf("the net beside it: %q", got)
	}
	// Web mail has many users behind one address.
	for range 12 {
		if got := fail(trusted, "jens@names.example"); got != wrong {
			t.Errorf("a wrong password by web mail: %q", got)
		}
	}
	if got := f.marker(t, trusted, "jens@names.example", "", "secret"); got != `exchange amt\jens.names` {
		t.Errorf("the right one: %q", got)
	}

	f.spillCanaries(t)
	f.noCanaries(t)
}

// spillCanaries says canaries where people and programs say passwords by mistake, in each protocol.
func (f *loginFront) spillCanaries(t *testing.T) {
	t.Helper()
	f.marker(t, trusted, "canary-name-2c9d41", "", "x")
	f.marker(t, trusted, "canary-name-2c9d41@names.example", "canary-authzid-2c9d41", "canary-x-2c9d41")
	for _, c := range []struct {
		addr string
		tls  []string // up to TLS
		say  string
	}{
		{f.imap, nil, "a LOGIN anna@names.example canary-a-2c9d41\r\nb AUTHENTICATE PLAIN " + plainSASL("anna@names.example", "canary-b-2c9d41") + "\r\nc LOGIN canary-c-2c9d41\r\ncanary-d-2c9d41\r\nz LOGOUT\r\n"},
		{f.imaps, []string{}, "a LOGIN anna@names.example canary-e-2c9d41 canary-f-2c9d41\r\nb AUTHENTICATE PLAIN\r\ncanary-g-2c9d41\r\nc AUTHENTICATE XOAUTH2 canary-h-2c9d41\r\nz LOGOUT\r\n"},
		{f.pop3, nil, "USER anna@names.example\r\nPASS canary-i-2c9d41\r\nQUIT\r\n"},
		{f.pop3, []string{"STLS"}, "USER canary-j-2c9d41\r\nPASS canary-k-2c9d41\r\nPASS canary-l-2c9d41\r\nQUIT\r\n"},
		{f.submission, []string{"EHLO x.example", "STARTTLS"}, "EHLO x.example\r\nAUTH PLAIN " + plainSASL("anna@names.example", "canary-m-2c9d41") + "\r\nAUTH LOGIN canary-n-2c9d41\r\nQUIT\r\n"},
		{f.sieve, []string{"STARTTLS"}, "AUTHENTICATE \"PLAIN\" \"" + plainSASL("anna@names.example", "canary-o-2c9d41") + "\"\r\ncanary-p-2c9d41\r\nLOGOUT\r\n"},
	} {
		f.spill(t, c.addr, c.tls, c.say)
	}
}

// noCanaries looks for them in all that the node writes and tells.
func (f *loginFront) noCanaries(t *testing.T) {
	t.Helper()
	look := func(where, text string) {
		if i := strings.Index(text, "2c9d41"); i >= 0 {
			t.Errorf("%s has a secret: %q", where, text[max(0, i-300):min(len(text), i+50)])
		}
		if i := strings.Index(text, plainSASL("anna@names.example", "canary")[:30]); i >= 0 {
			t.Errorf("%s has a secret in base64: %q", where, text[max(0, i-300):min(len(text), i+80)])
		}
	}
	look("its log", f.Output())
	for _, args := range [][]string{{"session", "list", "--json"}, {"config", "show"}, {"alarm", "list"}, {"audit", "export"}, {"route", "login", "anna@names.example"}} {
		out, errs, _ := f.command(args...)
		look("mailcutover "+strings.Join(args, " "), out+errs)
	}
	resp, err := http.Get(f.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	look("/metrics", string(text))
	err = filepath.WalkDir(f.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !d.Type().IsRegular() {
			return nil //nolint:nilerr // a file that is gone meanwhile has nothing
		}
		if text, err := os.ReadFile(name); err == nil {
			look(name, string(text))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if !strings.Contains(f.Output(), `"reason":"wrong"`) {
		t.Error("the log doesn't tell of wrong passwords: this test looks in the wrong place")
	}
}
