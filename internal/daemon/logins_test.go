package daemon

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/internal/platformtest"
	"mailcutover/proxy/login"
	"mailcutover/rollback/operation"
	"mailcutover/test/peers"
)

const anna = "anna@health.example"

// dialed is a client's connection.
type dialed struct {
	net.Conn
	in *bufio.Reader
	t  *testing.T
}

func dialNode(t *testing.T, addr net.Addr) *dialed {
	t.Helper()
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(3 * patience)); err != nil {
		t.Fatal(err)
	}
	return &dialed{Conn: conn, in: bufio.NewReader(conn), t: t}
}

// say sends a line, unless it is empty, and returns what comes up to the line that begins with one of
// the endings.
func (d *dialed) say(line string, endings ...string) string {
	d.t.Helper()
	if line != "" {
		if _, err := io.WriteString(d, line+"\r\n"); err != nil {
			d.t.Fatal(err)
		}
	}
	var all strings.Builder
	for {
		text, err := d.in.ReadString('\n')
		if all.WriteString(text); err != nil {
			d.t.Fatalf("after %q came %q, and then %v", line, all.String(), err)
		}
		if slices.ContainsFunc(endings, func(e string) bool { return strings.HasPrefix(text, e) }) {
			return all.String()
		}
	}
}

// plain is the initial response of SASL PLAIN.
func plain(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
}

// logIn logs anna in by a protocol, and returns the connection.
func (b *bench) logIn(t *testing.T, protocol, password string) (*dialed, string) {
	t.Helper()
	c := dialNode(t, b.Addr(protocol))
	switch protocol {
	case "imap":
		c.say("", "* OK")
		return c, c.say(fmt.Sprintf("a LOGIN %s %s", anna, password), "a ")
	case "pop3":
		c.say("", "+OK")
		c.say("USER "+anna, "+OK")
		return c, c.say("PASS "+password, "+OK", "-ERR")
	case "submission":
		c.say("", "220 ")
		c.say("EHLO client.example", "250 ")
		return c, c.say("AUTH PLAIN "+plain(anna, password), "235", "4", "5")
	default:
		c.say("", "OK")
		return c, c.say(`AUTHENTICATE "PLAIN" "`+plain(anna, password)+`"`, "OK", "NO")
	}
}

// listeners are those of a node for all protocols.
const listeners = `logins:
  spread: 200ms
  wait: 3s
  failures: {delay: 10ms, max_delay: 20ms}
  listeners:
    - {id: imap, protocol: imap, address: "127.0.0.1:0", tls: {mode: none, required: false}}
    - {id: submission, protocol: submission, address: "127.0.0.1:0", tls: {mode: none, required: false}}
    - {id: pop3, protocol: pop3, address: "127.0.0.1:0", tls: {mode: none, required: false}}
    - {id: sieve, protocol: sieve, address: "127.0.0.1:0", tls: {mode: none, required: false}}
`

var protocols = []string{"imap", "submission", "pop3", "sieve"}

// newLoginBench is a node with two Dovecots as platforms.
func newLoginBench(t *testing.T, more, onAdmin string) (*bench, [2]*peers.Dovecot) {
	t.Helper()
	b := &bench{t: t, path: filepath.Join(t.TempDir(), "mailcutover.yaml"), log: new(lines), onAdmin: onAdmin}
	relay, err := platformtest.Start(platformtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(relay.Close)
	var platforms [2]*peers.Dovecot
	for i, settings := range []*string{&b.onA, &b.onB} {
		d := peers.StartDovecot(t, peers.DovecotOptions{Logins: true, Relay: relay.Addr()})
		platforms[i] = d
		for protocol, host := range map[string]string{"imap": d.IMAP, "submission": d.Submission, "pop3": d.POP3, "sieve": d.Sieve} {
			*settings += fmt.Sprintf(`, %s: {hosts: ["%s"], tls: {policy: none}}`, protocol, host)
		}
	}
	return b.begin(more), platforms
}

// all returns the sessions of the moment.
func (b *bench) all() []admin.Session {
	b.t.Helper()
	s, err := b.api.Sessions(b.t.Context(), admin.SessionFilter{}, false, "", 0)
	if err != nil {
		b.t.Fatal(err)
	}
	return s.Sessions
}

// until waits for what has to come.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// logInAgain logs anna in by IMAP, and comes again as long as she is put off: before a login of an
// armed agency the table has 250 ms to answer.
func (b *bench) logInAgain(t *testing.T) *dialed {
	t.Helper()
	var c *dialed
	until(t, "a login", func() bool {
		var answer string
		c, answer = b.logIn(t, "imap", "secret")
		if strings.HasPrefix(answer, "a NO [UNAVAILABLE]") {
			_ = c.Close()
			return false
		}
		if !strings.Contains(answer, "a OK") {
			t.Fatalf("a login is answered %q", answer)
		}
		return true
	})
	return c
}

// A client of each protocol is logged in where its mailbox is, is told when it moves, and comes
// back at the other platform. Sessions can be seen and ended.
func TestLogins(t *testing.T) {
	t.Parallel()
	b, _ := newLoginBench(t, listeners, "")
	for _, protocol := range protocols {
		if _, answer := b.logIn(t, protocol, "wrong"); strings.Contains(answer, "OK") || strings.HasPrefix(answer, "235") {
			t.Errorf("%s: a wrong password is answered %q", protocol, answer)
		}
	}
	open := make(map[string]*dialed)
	for _, protocol := range protocols {
		c, answer := b.logIn(t, protocol, "secret")
		if !strings.Contains(answer, "OK") && !strings.HasPrefix(answer, "235") {
			t.Fatalf("%s: the right password is answered %q", protocol, answer)
		}
		open[protocol] = c
	}
	until(t, "four sessions are joined", func() bool { // a client is told of its login before
		list := b.all()
		return len(list) == 4 && !slices.ContainsFunc(list, func(s admin.Session) bool { return s.State == "opening" })
	})
	for _, s := range b.all() {
		if s.Platform != "exchange" || s.Agency != "health" || s.Login != anna || s.State != "joined" || s.Node != "mx1.example" || s.Epoch == "" ||
			!strings.HasPrefix(s.Client, "127.0.0.1:") || s.Listener != s.Protocol {
			t.Errorf("session is %+v", s)
		}
	}
	if r, err := b.api.RouteLogin(t.Context(), strings.ToUpper(anna)); err != nil || !r.Open || r.Platform != "exchange" {
		t.Errorf("route is %+v, %v", r, err)
	}
	open["imap"].say("b SELECT INBOX", "b OK")
	open["imap"].say("c IDLE", "+")

	b.arm()
	if op, err := b.operate(operation.Cutover); err != nil {
		t.Fatalf("cutover: %+v, %v", op, err)
	}
	if bye := open["imap"].say("", "* BYE"); !strings.Contains(bye, "UNAVAILABLE") {
		t.Errorf("the IMAP client is told %q", bye)
	}
	for _, c := range open {
		_ = c.Close() // else the node waits a while for them to
	}
	until(t, "sessions of the losing side end", func() bool { return len(b.all()) == 0 })
	c := b.logInAgain(t)
	if list := b.all(); len(list) != 1 || list[0].Platform != "ox" {
		t.Fatalf("after the cutover: %+v", list)
	}

	// By a person.
	if done, err := b.api.CloseSessions(t.Context(), admin.SessionFilter{Address: "127.0.0.0/8", Protocol: "pop3"}, false, false, "test"); err != nil || done.Closed != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	if done, err := b.api.CloseSessions(t.Context(), admin.SessionFilter{Address: "127.0.0.0/8", Mailbox: anna}, false, false, "test"); err != nil || done.Closed != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	c.say("", "* BYE")
	_ = c.Close()
	until(t, "the closed session ends", func() bool { return len(b.all()) == 0 })

	// The node takes leave of its clients when it stops.
	c = b.logInAgain(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	told := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(c)
		_ = c.Close()
		told <- string(text)
	}()
	if err := b.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if text := <-told; !strings.Contains(text, "* BYE") {
		t.Errorf("of the node's stop the client is told %q", text)
	}
	if strings.Contains(b.log.String(), "secret") {
		t.Error("the log has a password")
	}
}

// A platform that takes no logins of a protocol shows in /readyz; a reload with another
// address mends it.
func TestLoginEndpointThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	b, platforms := newLoginBench(t, listeners, "")
	good := b.onA
	b.onA = strings.Replace(good, platforms[0].IMAP, "127.0.0.1:1", 1)
	text, err := os.ReadFile(b.path)
	if err != nil {
		t.Fatal(err)
	}
	file := string(text)
	reload := func(settings string) {
		t.Helper()
		if err := os.WriteFile(b.path, []byte(strings.Replace(file, good, settings, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ready := func() bool {
		all, err := b.api.Platforms(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all[0].ID == "exchange" && all[0].Ready
	}
	until(t, "the platform is ready", ready)
	reload(b.onA)
	until(t, "a dead endpoint shows", func() bool { return !ready() })
	if _, answer := b.logIn(t, "imap", "secret"); !strings.HasPrefix(answer, "a NO [UNAVAILABLE]") {
		t.Errorf("with a dead endpoint a login is answered %q", answer)
	}
	reload(good)
	until(t, "the platform is ready again", ready)
	if _, answer := b.logIn(t, "imap", "secret"); !strings.Contains(answer, "a OK") {
		t.Errorf("after the reload a login is answered %q", answer)
	}
	// What all platforms of submission announce is announced.
	until(t, "both platforms of submission were asked", func() bool {
		c := dialNode(t, b.Addr("submission"))
		defer c.Close()
		c.say("", "220 ")
		ehlo := c.say("EHLO client.example", "250 ")
		if !strings.Contains(ehlo, "AUTH PLAIN") {
			t.Errorf("announced is %q", ehlo)
		}
		return strings.Contains(ehlo, "8BITMIME")
	})
}

// A node that is taken out for maintenance sends its sessions away, and takes no login.
func TestMaintenanceEndsSessions(t *testing.T) {
	t.Parallel()
	b, _ := newLoginBench(t, listeners, "")
	c, _ := b.logIn(t, "imap", "secret")
	if _, err := b.api.DrainNode(t.Context(), "mx1.example", true, "test"); err != nil {
		t.Fatal(err)
	}
	c.say("", "* BYE")
	_ = c.Close()
	until(t, "its sessions end", func() bool { return len(b.all()) == 0 })
	for protocol, want := range map[string]string{
		"imap": "* BYE [UNAVAILABLE]", "submission": "421 4.3.2", "pop3": "-ERR [SYS/TEMP]", "sieve": "BYE (TRYLATER)",
	} {
		dialNode(t, b.Addr(protocol)).say("", want) // in the place of a greeting
	}
}

func TestAutoconfig(t *testing.T) {
	t.Parallel()
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, _, err := ca.WriteFiles(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, path: filepath.Join(t.TempDir(), "mailcutover.yaml"), log: new(lines)}
	b.onA, b.onB = `, imap: {hosts: ["127.0.0.1:1"], tls: {policy: none}}`, `, imap: {hosts: ["127.0.0.1:1"], tls: {policy: none}}`
	b.begin(fmt.Sprintf(`logins:
  listeners: [{id: imaps, protocol: imap, address: "127.0.0.1:0", tls: {mode: implicit, cert_file: "%s", key_file: "%s"}}]
  autoconfig: {address: "127.0.0.1:0", servers: [{listener: imaps, host: mail.example.org, port: 993}]}
`, cert, key))
	for query, want := range map[string]int{"anna@health.example": 200, "nobody@health.example": 200, "anna@other.example": 404} {
		res, err := http.Get("http://" + b.AutoconfigAddr().String() + "/mail/config-v1.1.xml?emailaddress=" + query)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		if res.Body.Close(); err != nil || res.StatusCode != want || want == 200 && !strings.Contains(string(text), "<socketType>SSL</socketType>") {
			t.Errorf("%s: %d, %v\n%s", query, res.StatusCode, err, text)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// Connections leave some descriptors for the rest of the node.
func TestForConnections(t *testing.T) {
	for n, want := range map[uint64]int{0: 2, 100: 2, 128: 2, 1024: 896, 20000: 19000, 1 << 63: 1020054733} {
		if got := forConnections(n); got != want {
			t.Errorf("of %d descriptors: %d, want %d", n, got, want)
		}
	}
	for n, want := range map[uint64]int{0: 16, 256: 32, 1024: 32, 20000: 250, 1 << 20: 13107} {
		if got := forAPI(n); got != want {
			t.Errorf("the API gets %d of %d descriptors, want %d", got, n, want)
		}
	}
}

func TestCommonOffers(t *testing.T) {
	a := login.Offers{Size: 100, Pipelining: true, EightBitMIME: true, DSN: true, Sieve: "fileinto reject vacation"}
	o := login.Offers{Size: 50, Pipelining: true, SMTPUTF8: true, DSN: true, Chunking: true, Enhanced: true, Sieve: "vacation fileinto"}
	if got, want := common(a, o), (login.Offers{Size: 50, Pipelining: true, DSN: true, Sieve: "fileinto vacation"}); got != want || common(o, a).Size != 50 {
		t.Errorf("common is %+v, want %+v", got, want)
	}
	for size, want := range map[int64]int64{-1: 100, 0: 0} { // no limit that is known; no SIZE
		o.Size = size
		if got := common(a, o).Size; got != want {
			t.Errorf("size %d beside %d: got %d, want %d", a.Size, size, got, want)
		}
	}
}

// On whichever node a client is logged in, or an operation runs: each node tells of it, and
// ends sessions everywhere.
func TestSessionsOfTwoNodes(t *testing.T) {
	t.Parallel()
	redis := peers.StartRedis(t, peers.RedisOptions{})
	secret := filepath.Join(t.TempDir(), "peer.secret")
	if err := os.WriteFile(secret, []byte("a secret of two nodes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	more := fmt.Sprintf("table: {redis: {url: %q, allow_no_password: true, timeout: 5s}}\noperations: {mover: [cutover]}\n", redis.URL()) + listeners
	one, _ := newLoginBench(t, more, fmt.Sprintf(`, peer: {secret_file: %q}`, secret))
	two := one.second(t, more)
	until(t, "the second node serves", func() bool {
		d := two.gate.Address(anna)
		return d.Deliver()
	})
	c, answer := two.logIn(t, "imap", "secret")
	if !strings.Contains(answer, "a OK") {
		t.Fatalf("login is answered %q", answer)
	}
	// A node that doesn't answer within a second is missing, for the moment.
	until(t, "the first node tells of the session", func() bool {
		list := one.all()
		if len(list) == 0 {
			return false
		}
		if len(list) != 1 || list[0].Node != "mx2.example" {
			t.Fatalf("sessions are %+v", list)
		}
		s, err := one.api.Session(t.Context(), list[0].ID)
		return err == nil && s.Login == anna
	})
	// A plan counts them, wherever it is made.
	until(t, "a plan counts it", func() bool {
		p, err := one.runner.Plan(t.Context(), operation.Request{Kind: operation.Cutover, Agency: "health", Who: "tester", Reason: "test"})
		if err != nil || p.Agencies[0].Sessions > 1 {
			t.Fatalf("the plan knows of %+v, %v", p.Agencies, err)
		}
		return p.Agencies[0].Sessions == 1 && len(p.Agencies[0].Missing) == 0
	})
	until(t, "both nodes tell how many they have", func() bool {
		n, err := one.api.NodesWithSessions(t.Context())
		if err != nil || len(n.Nodes) != 2 {
			t.Fatalf("the nodes have %+v, %v", n, err)
		}
		mine, others := n.Nodes[0].Sessions, n.Nodes[1].Sessions
		return mine != nil && *mine == 0 && others != nil && *others == 1
	})
	began, closed := time.Now(), 0
	until(t, "both nodes close theirs", func() bool {
		done, err := one.api.CloseSessions(t.Context(), admin.SessionFilter{Agency: "health"}, false, false, "test")
		if closed += done.Closed; err != nil || closed > 1 {
			t.Fatalf("%+v, %v", done, err)
		}
		return len(done.Nodes) == 2 && len(done.Missing) == 0
	})
	c.say("", "* BYE")
	_ = c.Close()
	t.Logf("told %s after the close was asked for on the other node", time.Since(began))
	until(t, "the session ends", func() bool { return len(one.all()) == 0 })

	// What an operation waits for is known where it runs, and told by the other node too.
	one.arm()
	agency, err := one.api.Agency(t.Context(), "health")
	if err != nil {
		t.Fatal(err)
	}
	op, err := one.api.Start(t.Context(), operation.Cutover, "health", agency.Epoch, "test")
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the other node says what is waited for", func() bool {
		v, err := two.api.Operation(t.Context(), op.ID) // an error: its copy hasn't come to there yet
		return err == nil && v.Node == "mx1.example" && !v.Running && v.Step == "hooks" && v.Waiting != "" && len(v.Nodes) == 2
	})
	if _, err := one.api.Abort(t.Context(), op.ID, "test"); err != nil {
		t.Error(err)
	}
	until(t, "the operation ends", func() bool {
		v, err := two.api.Operation(t.Context(), op.ID)
		return err == nil && v.Ended
	})

	// A node that is gone is named, and keeps nobody waiting.
	two.stop(two.Daemon)
	if page, err := one.api.Sessions(t.Context(), admin.SessionFilter{}, false, "", 0); err != nil || len(page.Missing) != 0 {
		t.Errorf("of a node that stopped in order: %+v, %v", page, err)
	}
}
