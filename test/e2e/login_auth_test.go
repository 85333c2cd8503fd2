package e2e

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mailcutover/internal/platformtest"
	"mailcutover/routing"
	"mailcutover/test/peers"
)

// startAuthPlatform starts a Dovecot with these settings at its beginning and its end. It
// answers a wrong password at once.
func startAuthPlatform(t *testing.T, id, first, extra string) *loginPlatform {
	t.Helper()
	p := &loginPlatform{id: id, relay: startPlatform(t, platformtest.Options{})}
	p.Dovecot = peers.StartDovecot(t, peers.DovecotOptions{Logins: true, Relay: p.relay.Addr(), First: first, Extra: "auth_username_chars =\n" + extra})
	return p
}

// endpoints are a platform's for all protocols, with further keys of each.
func (p *loginPlatform) endpoints(more string) platform {
	var b strings.Builder
	for i, one := range [][2]string{{"imap", p.IMAP}, {"pop3", p.POP3}, {"sieve", p.Sieve}, {"submission", p.Submission}} {
		if i > 0 {
			b.WriteString("\n    ")
		}
		fmt.Fprintf(&b, "%s: {hosts: [%q], tls: {policy: none}%s}", one[0], one[1], more)
	}
	return platform{id: p.id, addr: p.LMTP, lmtp: true, more: b.String()}
}

func writeSecret(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// authRow is a mailbox that both platforms know by its address.
func authRow(agency, local string) string {
	return strings.ReplaceAll(loginRow(agency, local, "", ""), atExchange(agency, local), local+"@"+agency+".example")
}

// inDirectory is a mailbox's entry in the directory.
func inDirectory(t *testing.T, agency, local, password string) string {
	t.Helper()
	id, err := routing.ParseMailboxID(strings.Split(loginRow(agency, local, "", ""), ";")[1])
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("dn: cn=%[2]s %[1]s,ou=%[1]s,dc=example,dc=org\nobjectClass: user\ncn: %[2]s %[1]s\nmail: %[2]s@%[1]s.example\nobjectGUID:: %[3]s\nuserAccountControl: 512\nuserPassword: %[4]s\n\n",
		agency, local, base64.StdEncoding.EncodeToString(id[:]), password)
}

// byEach logs in by each protocol, and returns what it says of its login: yes, or the refusal.
func (f *loginFront) byEach(t *testing.T, user, password string) map[string]string {
	t.Helper()
	sasl, up := plainSASL(user, password), "yes"
	said := func(text, yes string, noes ...string) string {
		if strings.Contains(text, yes) {
			return up
		}
		for _, no := range noes {
			if strings.Contains(text, no) {
				return no
			}
		}
		return text
	}
	tls := []string{}
	return map[string]string{
		"imap":       said(f.spill(t, f.imaps, tls, "a AUTHENTICATE PLAIN "+sasl+"\r\nb LOGOUT\r\n"), "a OK", "NO [AUTHENTICATIONFAILED]", "NO [UNAVAILABLE]", "NO [CANNOT]"),
		"pop3":       said(f.spill(t, f.pop3, []string{"STLS"}, "AUTH PLAIN "+sasl+"\r\nQUIT\r\n"), "+OK Logged in", "-ERR [AUTH]", "-ERR [SYS/TEMP]"),
		"sieve":      said(f.spill(t, f.sieve, []string{"STARTTLS"}, "AUTHENTICATE \"PLAIN\" \""+sasl+"\"\r\nLOGOUT\r\n"), "OK \"Logged in", "NO (TRYLATER)", "NO "),
		"submission": said(f.spill(t, f.submission, []string{"EHLO client.example", "STARTTLS"}, "EHLO client.example\r\nAUTH PLAIN "+sasl+"\r\nQUIT\r\n"), "235 2.7.0", "535", "454"),
	}
}

// With a master user a platform opens every mailbox. Who is let in is what the directory says,
// by the user's own password, whichever form of master user a platform has.
func TestMasterUser(t *testing.T) {
	t.Parallel()
	const master = "passdb {\n driver = static\n master = yes\n args = password=master\n}\nauth_master_user_separator = *\n"
	exchange, ox := startAuthPlatform(t, "exchange", master, ""), startAuthPlatform(t, "ox", master, "")
	entries := ""
	for _, agency := range []string{"masters", "saslers"} {
		entries += "dn: ou=" + agency + ",dc=example,dc=org\nobjectClass: organizationalUnit\nou: " + agency + "\n\n" +
			inDirectory(t, agency, "anna", "anna's own") + inDirectory(t, agency, "bert", "bert's own")
	}
	slapd := peers.StartSlapd(t, peers.SlapdOptions{LDIF: entries})
	dir := peers.TempDir(t, "secrets")
	for name, text := range map[string]string{"lists": "a key for lists, for tests, of 40 bytes", "bind": peers.SlapdPassword, "master": "master"} {
		writeSecret(t, filepath.Join(dir, name), text)
	}
	auth := ", auth: {mode: master, user: proxy, password_file: " + filepath.Join(dir, "master") + ", separator: %q}"
	f := startLoginFront(t, loginSetup{
		logins: "  verify: {directory: ad}\n  failures: {delay: 1ms, max_delay: 1ms, per_name: 0, per_net: 0}\n",
		setup: setup{
			platforms: []platform{exchange.endpoints(fmt.Sprintf(auth, "*")), ox.endpoints(fmt.Sprintf(auth, ""))},
			more: fmt.Sprintf(`identity:
  key_file: %s
  directories:
    - {name: ad, servers: ["ldap://%s"], base: "dc=example,dc=org", bind: {dn: %q, password_file: %s}}
  agencies:
    - {agency: masters, bases: ["ou=masters,dc=example,dc=org"]}
    - {agency: saslers, bases: ["ou=saslers,dc=example,dc=org"]}
`, filepath.Join(dir, "lists"), slapd.Addr, peers.SlapdAdmin, filepath.Join(dir, "bind")),
		},
	})
	f.addAgencyOn("masters", "exchange", "ox")
	f.addAgencyOn("saslers", "ox", "exchange")
	f.importList(listHeader + authRow("masters", "anna") + authRow("masters", "bert") + authRow("saslers", "anna") + authRow("saslers", "bert"))
	for _, p := range []*loginPlatform{exchange, ox} {
		for _, agency := range []string{"masters", "saslers"} {
			p.mark(t, "anna@"+agency+".example")
			p.mark(t, "bert@"+agency+".example")
		}
	}
	wrong := map[string]string{"imap": "NO [AUTHENTICATIONFAILED]", "pop3": "-ERR [AUTH]", "sieve": "NO ", "submission": "535"}
	later := map[string]string{"imap": "NO [UNAVAILABLE]", "pop3": "-ERR [SYS/TEMP]", "sieve": "NO (TRYLATER)", "submission": "454"}
	yes := map[string]string{"imap": "yes", "pop3": "yes", "sieve": "yes", "submission": "yes"}
	expect := func(user, password string, want map[string]string) {
		t.Helper()
		for protocol, got := range f.byEach(t, user, password) {
			if got != want[protocol] {
				t.Errorf("%s as %s: %q, want %q", protocol, user, got, want[protocol])
			}
		}
	}
	for agency, p := range map[string]*loginPlatform{"masters": exchange, "saslers": ox} {
		anna, bert := "anna@"+agency+".example", "bert@"+agency+".example"
		if got := f.marker(t, trusted, anna, "", "anna's own"); got != p.id+" "+anna {
			t.Errorf("%s: %q", anna, got)
		}
		if got := f.marker(t, trusted, bert, "", "bert's own"); got != p.id+" "+bert {
			t.Errorf("%s: %q", bert, got)
		}
		expect(anna, "anna's own", yes)
		for _, password := range []string{"bert's own", "master", "secret", "anna's ow", "anna's own "} {
			expect(anna, password, wrong)
		}
		if got := f.marker(t, trusted, anna, bert, "anna's own"); got != "NO [CANNOT]" {
			t.Errorf("%s for %s: %q", anna, bert, got)
		}
		if got := f.marker(t, trusted, anna+"*proxy", "", "master"); got != "NO [CANNOT]" {
			t.Errorf("a client names the master user: %q", got)
		}
	}
	if got := f.spill(t, f.imaps, []string{}, "a LOGIN anna@masters.example \"\"\r\nb LOGOUT\r\n"); !strings.Contains(got, "a BAD ") {
		t.Errorf("an empty password: %q", got)
	}
	token := base64.StdEncoding.EncodeToString([]byte("user=anna@masters.example\x01auth=Bearer a-token\x01\x01"))
	if got := f.spill(t, f.imaps, []string{}, "a AUTHENTICATE XOAUTH2 "+token+"\r\nb LOGOUT\r\n"); !strings.Contains(got, "a NO [UNAVAILABLE]") {
		t.Errorf("a token: %q", got)
	}
	slapd.Kill()
	expect("anna@masters.example", "anna's own", later)
	expect("anna@masters.example", "wrong", later)
	if err := slapd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A server that failed is left alone for a moment, and asked all the same if there is no other.
	expect("anna@masters.example", "anna's own", yes)
	for _, secret := range []string{"anna's own", "bert's own", `"master"`} {
		if strings.Contains(f.Output(), secret) {
			t.Errorf("%q is in the node's log", secret)
		}
	}
}

// introspection answers Dovecot's questions about tokens (RFC 7662).
func introspection(t *testing.T, tokens map[string]string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, ok := tokens[r.FormValue("token")]
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"active": ok, "username": user})
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("introspection: %v", err)
		}
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return ln.Addr().String()
}

// Tokens are passed on to a Dovecot that asks their issuer about them.
func TestTokens(t *testing.T) {
	t.Parallel()
	const anna, bert = "anna@tokens.example", "bert@tokens.example"
	asks := introspection(t, map[string]string{"anna-token": anna, "bert-token": bert})
	file := filepath.Join(peers.TempDir(t, "oauth2"), "oauth2.conf")
	writeSecret(t, file, "introspection_mode = post\nintrospection_url = http://"+asks+"/\nusername_attribute = username\nactive_attribute = active\nactive_value = true")
	oauth := "passdb {\n driver = oauth2\n mechanisms = oauthbearer xoauth2\n args = " + file + "\n}\n"
	// Each platform takes one form only: the node passes a token on in the other, too.
	exchange := startAuthPlatform(t, "exchange", oauth, "auth_mechanisms = plain xoauth2\n")
	ox := startAuthPlatform(t, "ox", oauth, "auth_mechanisms = plain oauthbearer\n")
	f := startLoginFront(t, loginSetup{
		logins: "  failures: {delay: 1ms, max_delay: 1ms}\n",
		setup:  setup{platforms: []platform{exchange.endpoints(""), ox.endpoints("")}},
	})
	f.addAgency("tokens")
	f.importList(listHeader + authRow("tokens", "anna") + authRow("tokens", "bert"))
	for _, p := range []*loginPlatform{exchange, ox} {
		p.mark(t, anna)
		p.mark(t, bert)
	}
	curl := func(url, mechanism, user, token string, more ...string) (string, error) {
		args := append([]string{"-sS", "--max-time", "30", "--ssl-reqd", "--cacert", f.ca, "--user", user, "--oauth2-bearer", token, "--login-options", "AUTH=" + mechanism, url}, more...)
		out, err := exec.CommandContext(t.Context(), "curl", args...).CombinedOutput()
		return string(out), err
	}
	check := func(p *loginPlatform) {
		t.Helper()
		for _, mechanism := range []string{"OAUTHBEARER", "XOAUTH2"} {
			for user, token := range map[string]string{anna: "anna-token", bert: "bert-token"} {
				want := "Subject: " + p.id + " " + user
				if out, err := curl("imaps://"+f.imaps+"/INBOX;MAILINDEX=1", mechanism, user, token); err != nil || !strings.Contains(out, want) {
					t.Errorf("%s by IMAP at %s: %q, %v", mechanism, p.id, out, err)
				}
				if out, err := curl("pop3://"+f.pop3+"/1", mechanism, user, token); err != nil || !strings.Contains(out, want) {
					t.Errorf("%s by POP3 at %s: %q, %v", mechanism, p.id, out, err)
				}
				if out, err := curl("smtp://"+f.submission, mechanism, user, token, "--request", "NOOP"); err != nil {
					t.Errorf("%s by submission at %s: %q, %v", mechanism, p.id, out, err)
				}
			}
			for what, url := range map[string]string{"IMAP": "imaps://" + f.imaps, "POP3": "pop3://" + f.pop3, "submission": "smtp://" + f.submission} {
				if out, err := curl(url, mechanism, anna, "bert-token"); err == nil {
					t.Errorf("%s by %s with another's token at %s: %q", mechanism, what, p.id, out)
				}
			}
		}
		// The refusal is the platform's own, after the challenge that tells why (RFC 7628 section 3.2.3).
		refused := f.spill(t, f.imaps, []string{}, "a AUTHENTICATE XOAUTH2 "+base64.StdEncoding.EncodeToString([]byte("user="+anna+"\x01auth=Bearer nobody's\x01\x01"))+"\r\n\r\nb LOGOUT\r\n")
		if !strings.Contains(refused, "a NO [AUTHENTICATIONFAILED]") {
			t.Errorf("a token that nobody issued at %s: %q", p.id, refused)
		}
		sieve := f.spill(t, f.sieve, []string{"STARTTLS"}, "AUTHENTICATE \"OAUTHBEARER\" \""+base64.StdEncoding.EncodeToString([]byte("n,a="+anna+",\x01auth=Bearer anna-token\x01\x01"))+"\"\r\nLISTSCRIPTS\r\nLOGOUT\r\n")
		if !strings.Contains(sieve, `"`+p.id+`"`) {
			t.Errorf("by ManageSieve at %s: %q", p.id, sieve)
		}
	}
	check(exchange)
	f.mustSwitch("cutover", "tokens")
	check(ox)
	f.mustSwitch("rollback", "tokens")
	check(exchange)
	if strings.Contains(f.Output(), "-token") {
		t.Error("a token is in the node's log")
	}
}
