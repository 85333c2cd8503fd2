package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"

	"mailcutover/internal/platformtest"
	"mailcutover/test/peers"
)

// loginPlatform is a Dovecot as a platform: every name is a mailbox with the password "secret",
// and a submission hands its mail to relay.
type loginPlatform struct {
	*peers.Dovecot
	id        string
	relay     *platformtest.Platform
	sentinels atomic.Int32
}

// asExchange are a Dovecot's settings that make it look like Exchange from outside: what it
// announces, how it greets, and logins of the form DOMAIN\user.
const asExchange = `
imap_capability = IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT CLIENTACCESSRULES CLIENTNETWORKPRESENCELOCATION BACKENDAUTHENTICATE CHILDREN IDLE NAMESPACE LITERAL+
login_greeting = The Microsoft Exchange IMAP4 service is ready. [RQBYAEMASABBAE4ARwBFAA==]
auth_username_chars =
`

// loginFront is a node with two Dovecots, whose logins it takes. Towards exchange it has TLS
// with a verified certificate; ox is spoken to in plain text on this host.
type loginFront struct {
	*node
	exchange, ox *loginPlatform
	ca           string           // file of the authority of all certificates
	authority    *platformtest.CA // of the platforms' certificates
	trust        *x509.CertPool

	imap, imaps, pop3, submission, sieve string // host and port
}

// loginSetup says how a loginFront differs.
type loginSetup struct {
	logins string // further lines below logins, in YAML, indented by two
	setup  setup  // its platforms, if any, take the place of the Dovecots
	imap   bool   // IMAP alone
	plain  bool   // without TLS
}

// protocolsOfLogin are the listeners: all need TLS.
var protocolsOfLogin = []struct{ id, protocol, mode string }{
	{"imap", "imap", "starttls"}, {"imaps", "imap", "implicit"}, {"pop3", "pop3", "starttls"},
	{"submission", "submission", "starttls"}, {"sieve", "sieve", "starttls"},
}

// startLoginPlatforms starts the two Dovecots, and returns what a node's configuration says of them.
func startLoginPlatforms(t testing.TB, tlsDir, ca string) (exchange, ox *loginPlatform, settings []platform) {
	t.Helper()
	cert, key := filepath.Join(tlsDir, "cert.pem"), filepath.Join(tlsDir, "key.pem")
	start := func(id, extra string) *loginPlatform {
		p := &loginPlatform{id: id, relay: startPlatform(t, platformtest.Options{})}
		p.Dovecot = peers.StartDovecot(t, peers.DovecotOptions{
			Logins: true, Relay: p.relay.Addr(),
			Extra: "auth_mechanisms = plain login\nservice imap-login {\n service_count = 0\n client_limit = 900\n process_min_avail = 2\n process_limit = 10\n}\nmail_max_userip_connections = 10000\n" + extra,
		})
		return p
	}
	exchange = start("exchange", "ssl = yes\nssl_cert = <"+cert+"\nssl_key = <"+key+"\n"+asExchange)
	ox = start("ox", "auth_username_chars =\n")
	for _, p := range []struct {
		*loginPlatform
		tls, delegate string
		identity      [2]string // for IMAP, and for the others
	}{
		{exchange, fmt.Sprintf("policy: verified, ca_file: %q", ca), `\`, [2]string{"none", "none"}},
		{ox, "policy: none", "/", [2]string{"id", "xclient"}},
	} {
		var more strings.Builder
		fmt.Fprintf(&more, "imap: {hosts: [%q], tls: {%s}, delegate: %q, client_identity: %s}\n", p.IMAP, p.tls, p.delegate, p.identity[0])
		fmt.Fprintf(&more, "    pop3: {hosts: [%q], tls: {%s}, client_identity: %s}\n", p.POP3, p.tls, p.identity[1])
		fmt.Fprintf(&more, "    sieve: {hosts: [%q], tls: {%s}, client_identity: %s}\n", p.Sieve, p.tls, p.identity[1])
		fmt.Fprintf(&more, "    submission: {hosts: [%q], tls: {%s}, client_identity: %s}", p.Submission, p.tls, p.identity[1])
		settings = append(settings, platform{id: p.id, addr: p.LMTP, lmtp: true, more: more.String()})
	}
	return exchange, ox, settings
}

// startLoginFront starts platforms and node.
func startLoginFront(t testing.TB, s loginSetup) *loginFront {
	t.Helper()
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	dir := peers.TempDir(t, "tls")
	_, key, caFile, err := ca.WriteFiles(dir, "node.example.org", "127.0.0.1", "localhost")
	if err == nil {
		err = os.Chmod(key, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	f := &loginFront{ca: caFile, authority: ca, trust: ca.Pool()}
	if len(s.setup.platforms) == 0 {
		f.exchange, f.ox, s.setup.platforms = startLoginPlatforms(t, dir, caFile)
	}
	f.start(t, dir, s)
	return f
}

// start starts the node with certificate and key of a directory.
func (f *loginFront) start(t testing.TB, tlsDir string, s loginSetup) {
	t.Helper()
	var b strings.Builder
	b.WriteString("logins:\n" + s.logins + "  listeners:\n")
	addrs := make(map[string]string)
	for _, l := range protocolsOfLogin {
		if s.imap && l.protocol != "imap" {
			continue
		}
		if s.plain {
			if l.mode != "implicit" {
				addrs[l.id] = fmt.Sprintf("127.0.0.1:%d", peers.Port(t))
				fmt.Fprintf(&b, "    - {id: %s, protocol: %s, address: %q, trusted_nets: [127.9.0.0/16], limits: {connections_per_address: 10000}, tls: {mode: none, required: false}}\n", l.id, l.protocol, addrs[l.id])
			}
			continue
		}
		addrs[l.id] = fmt.Sprintf("127.0.0.1:%d", peers.Port(t))
		fmt.Fprintf(&b, "    - {id: %s, protocol: %s, address: %q, trusted_nets: [127.9.0.0/16], limits: {connections_per_address: 10000}, tls: {mode: %s, cert_file: %q, key_file: %q}}\n",
			l.id, l.protocol, addrs[l.id], l.mode, filepath.Join(tlsDir, "cert.pem"), filepath.Join(tlsDir, "key.pem"))
	}
	f.imap, f.imaps, f.pop3, f.submission, f.sieve = addrs["imap"], addrs["imaps"], addrs["pop3"], addrs["submission"], addrs["sieve"]
	s.setup.more += b.String()
	f.node = startNode(t, s.setup)
}

// addLogins adds an agency, whose mailboxes exchange knows as AMT\local.agency and ox by their
// addresses, and puts a marker into each: a message with the platform's id as subject.
func (f *loginFront) addLogins(agency string, locals ...string) {
	f.t.Helper()
	var b strings.Builder
	b.WriteString(listHeader)
	for _, local := range locals {
		b.WriteString(loginRow(agency, local, "", ""))
	}
	f.addAgency(agency)
	f.importList(b.String())
	for _, local := range locals {
		f.exchange.mark(f.t, atExchange(agency, local))
		f.ox.mark(f.t, local+"@"+agency+".example")
	}
}

func (f *loginFront) importList(list string) {
	f.t.Helper()
	if _, err := f.api.Import(f.t.Context(), strings.NewReader(list), "test", false); err != nil {
		f.t.Fatal(err)
	}
}

// atExchange is the login of a mailbox at exchange.
func atExchange(agency, local string) string { return `AMT\` + local + "." + agency }

func loginRow(agency, local, aliases, logins string) string {
	address := local + "@" + agency + ".example"
	sum := sha256.Sum256([]byte(address))
	return fmt.Sprintf("%s;%x-%x-%x-%x-%x;%s;user;%s;%s;;%s;;%s;\n", address, sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16],
		agency, aliases, logins, atExchange(agency, local), address)
}

// mark puts the marker into the mailbox of a login at this platform, where no node stands between.
func (p *loginPlatform) mark(t testing.TB, login string) {
	t.Helper()
	c, err := imapclient.DialInsecure(p.IMAP, nil)
	if err == nil {
		err = c.Login(login, "secret").Wait()
	}
	if err != nil {
		t.Fatalf("mark %s at %s: %v", login, p.id, err)
	}
	defer c.Close()
	text := fmt.Sprintf("From: marker@%s.example\r\nSubject: %s %s\r\nMessage-ID: <%x@%s>\r\n\r\nmarker\r\n", p.id, p.id, strings.ToLower(login), sha256.Sum256([]byte(login)), p.id)
	put := c.Append("INBOX", int64(len(text)), nil)
	_, err = put.Write([]byte(text))
	if err == nil {
		err = put.Close()
	}
	if err == nil {
		_, err = put.Wait()
	}
	if err != nil {
		t.Fatalf("mark %s at %s: %v", login, p.id, err)
	}
	p.markSieve(t, login)
}

// markSieve stores a script with the platform's id as its name.
func (p *loginPlatform) markSieve(t testing.TB, login string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", p.Sieve, patience)
	if err == nil {
		defer conn.Close()
		w := &wire{conn: conn, r: bufio.NewReader(conn)}
		text := "keep;\r\n"
		err = w.send(fmt.Sprintf("AUTHENTICATE \"PLAIN\" %q\r\nPUTSCRIPT %q {%d+}\r\n%s\r\nLOGOUT\r\n", plainSASL(login, "secret"), p.id, len(text), text))
		if err == nil {
			var all []byte
			if all, err = io.ReadAll(w.r); err == nil && !within(all, "PUTSCRIPT completed") {
				err = fmt.Errorf("%w: %q", errAnswer, all)
			}
		}
	}
	if err != nil {
		t.Fatalf("mark %s at %s by ManageSieve: %v", login, p.id, err)
	}
}

// plainSASL is the initial response of SASL PLAIN.
func plainSASL(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
}

// plainFor is that of a user who acts for another.
func plainFor(authorize, user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(authorize + "\x00" + user + "\x00" + password))
}

// spill says something to a listener and reads until it ends the connection. Before, unless up is
// nil, TLS begins: at once, or when all of up was said.
func (f *loginFront) spill(t testing.TB, addr string, up []string, text string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if len(up) > 0 {
		// Each answer is waited for, since nothing may stand behind STARTTLS.
		in := bufio.NewReader(conn)
		for _, command := range up {
			fmt.Fprintf(conn, "%s\r\n", command)
		}
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				t.Fatalf("%s: %v", addr, err)
			}
			if strings.HasPrefix(line, "220 2.0.0") || strings.HasPrefix(line, "+OK Begin") || strings.HasPrefix(line, `OK "Begin`) {
				break
			}
		}
	}
	if up != nil {
		conn = tls.Client(conn, f.tlsConfig())
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatalf("%s: %v", addr, err)
	}
	all, err := io.ReadAll(conn)
	if err != nil && len(all) == 0 {
		t.Errorf("%s: %v", addr, err)
	}
	return string(all)
}

// sentinel logs in directly as somebody else, and returns how long the platform's log is behind
// that login: what comes later in the log came later.
func (p *loginPlatform) sentinel(t testing.TB) int {
	t.Helper()
	name := fmt.Sprintf("sentinel%d@nobody.example", p.sentinels.Add(1))
	c, err := imapclient.DialInsecure(p.IMAP, nil)
	if err == nil {
		err = c.Login(name, "secret").Wait()
	}
	if err != nil {
		t.Fatalf("sentinel at %s: %v", p.id, err)
	}
	defer c.Close()
	at := 0
	waitFor(t, name+" in the log of "+p.id, func() bool {
		log := p.Output()
		at = strings.Index(log, "Login: user=<"+name+">")
		return at >= 0
	})
	return at
}

// loginsOf returns the lines of the platform's log, from one sentinel to another, that tell of
// logins of an agency, whether they succeeded or not.
func (p *loginPlatform) loginsOf(agency string, from, to int) []string {
	var found []string
	for line := range strings.Lines(p.Output()[from:to]) {
		if strings.Contains(line, "user=<") && (strings.Contains(line, "@"+agency+".example>") || strings.Contains(line, "."+agency+">")) &&
			(strings.Contains(line, "Login:") || strings.Contains(line, "Disconnected: Auth") || strings.Contains(line, "auth failed")) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// tlsConfig is how clients look at the node's certificate.
func (f *loginFront) tlsConfig() *tls.Config {
	return &tls.Config{RootCAs: f.trust, ServerName: "127.0.0.1"}
}

// dialLogin connects to a listener with implicit TLS, from an address of this host.
func (f *loginFront) dialLogin(ctx context.Context, addr, from string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, f.tlsConfig())
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// within reports whether all of the words stand in b.
func within(b []byte, words ...string) bool {
	for _, w := range words {
		if !bytes.Contains(b, []byte(w)) {
			return false
		}
	}
	return true
}
