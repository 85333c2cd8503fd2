package attack

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/internal/platformtest"
	"mailcutover/test/peers"
)

// patience is how long a test waits for what must come, on a busy machine.
const patience = 60 * time.Second

// slow asks for the cases that last minutes.
var slow = flag.Bool("attack.slow", false, "also wait for limits that are minutes long")

// built is a program to attack in the place of one that is built here.
var built = flag.String("attack.program", "", "the program to attack; empty: it is built")

// programDir is where the program is while the tests run.
var programDir string

// TestMain lets more tests run at a time than there are processors: most of the time they wait.
func TestMain(m *testing.M) { os.Exit(peers.Main(m, &programDir, 3)) }

// program builds mailcutover as this test was built, once in a test process.
var program = sync.OnceValues(func() (string, error) { return build("own", raceEnabled) })

// plainProgram builds it without the race detector, which wants many times the memory.
var plainProgram = sync.OnceValues(func() (string, error) { return build("plain", false) })

func build(name string, race bool) (string, error) {
	if *built != "" {
		return *built, nil
	}
	return peers.Build(context.Background(), filepath.Join(programDir, name), "./cmd/mailcutover", race)
}

const token = "mc_attack_0123456789abcdef0123456789abcdef"

// setup says how a front differs. The texts are YAML.
type setup struct {
	mail      string                 // further keys of the listeners for mail, in flow style, behind a comma
	logins    string                 // and of those for logins
	more      string                 // further lines below logins, indented by two
	trust     []byte                 // further authorities of the platforms' certificates, in PEM
	platforms map[string]*tls.Config // by id, for STARTTLS, which is verified then; nil: exchange, and ox by LMTP, without TLS
	locals    []string               // of further mailboxes of each agency
	lmtp      []string               // ids of platforms that take mail by LMTP, besides ox
	mailAt    map[string]string      // where a platform takes its mail, by id; left out: at the recording one
	shell     string                 // what a shell does before it becomes the node: "ulimit -n 256"
	env       []string
	plain     bool   // built without the race detector
	approval  string // empty: none
}

// front is a node with every listener that there is, in front of two recording platforms for
// mail and for logins by IMAP, submission, POP3 and ManageSieve. Each has the agency of its own
// name, with the mailboxes anna, victim and postmaster.
type front struct {
	*peers.Process
	t         testing.TB
	dir       string
	authority *platformtest.CA
	platforms map[string]*recorded
	ids       []string          // of the platforms, sorted
	locals    []string          // of further mailboxes of each agency
	addrs     map[string]string // by the listener's id, "admin", "page" and "autoconfig"
}

// recorded is what a platform has heard.
type recorded struct {
	mail   *platformtest.Platform
	logins map[string]*loginPlatform // by protocol
}

// protocols are those of logins.
var protocols = []string{"imap", "submission", "pop3", "sieve"}

// start starts a front. It ends with the test.
func start(t testing.TB, s setup) *front {
	t.Helper()
	binary := program
	if s.plain {
		binary = plainProgram
	}
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	f := &front{t: t, dir: peers.TempDir(t, "node"), locals: s.locals, platforms: make(map[string]*recorded), addrs: make(map[string]string)}
	if f.authority, err = platformtest.NewCA(); err != nil {
		t.Fatal(err)
	}
	_, key, _, err := f.authority.WriteFiles(f.dir, "node.example.org", "127.0.0.1", "localhost")
	if err == nil {
		err = os.Chmod(key, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if s.platforms == nil {
		s.platforms = map[string]*tls.Config{"exchange": nil, "ox": nil}
	}
	f.ids = slices.Sorted(maps.Keys(s.platforms))
	for id, config := range s.platforms {
		f.platforms[id] = &recorded{
			mail:   startMailPlatform(t, platformtest.Options{LMTP: id == "ox", BareLFEndsData: true, TLS: config}),
			logins: make(map[string]*loginPlatform),
		}
		for _, protocol := range protocols {
			f.platforms[id].logins[protocol] = startLoginPlatform(t, protocol, config)
		}
	}
	f.write("trust.pem", string(s.trust))
	f.write("config.yaml", f.config(s))
	shell := s.shell
	if shell != "" {
		shell += " && "
	}
	f.Process = peers.StartProgram(t, peers.Program{
		Name: "mailcutover", Kept: 8 << 20,
		Make: func() *exec.Cmd {
			cmd := exec.Command("/bin/sh", "-c", shell+`exec "$0" serve --config "$1"`, bin, filepath.Join(f.dir, "config.yaml"))
			cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0 log_path="+filepath.Join(f.dir, "race")), s.env...)
			return cmd
		},
		Ready: f.ready,
	})
	t.Cleanup(f.checkLog)
	for i, id := range f.ids {
		f.addAgency(id, f.ids[(i+1)%len(f.ids)])
	}
	return f
}

func startMailPlatform(t testing.TB, o platformtest.Options) *platformtest.Platform {
	t.Helper()
	p, err := platformtest.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func (f *front) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// config returns the node's configuration file, and gives each listener an address.
func (f *front) config(s setup) string {
	address := func(id string) string {
		f.addrs[id] = fmt.Sprintf("127.0.0.1:%d", peers.Port(f.t))
		return f.addrs[id]
	}
	files := fmt.Sprintf("cert_file: %q, key_file: %q", filepath.Join(f.dir, "cert.pem"), filepath.Join(f.dir, "key.pem"))
	var b strings.Builder
	fmt.Fprintf(&b, "node: node.example.org\ndata: %s\napproval: %s\nlab: true\nlisteners:\n", filepath.Join(f.dir, "data"), cmp.Or(s.approval, "none"))
	for _, l := range []struct{ id, protocol, tls, more string }{
		{"mx", "smtp", "mode: starttls, " + files, ""},
		{"mxs", "smtp", "mode: implicit, " + files, ""},
		{"mx-lmtp", "lmtp", "mode: none", ""},
		{"mx-proxy", "smtp", "mode: starttls, " + files, ", proxy_nets: [127.6.0.0/16]"},
	} {
		fmt.Fprintf(&b, "  - {id: %s, protocol: %s, address: %q, tls: {%s}%s%s}\n", l.id, l.protocol, address(l.id), l.tls, l.more, s.mail)
	}
	b.WriteString("logins:\n" + s.more + "  listeners:\n")
	for _, l := range []struct{ id, protocol, mode, more string }{
		{"imap", "imap", "starttls", ""}, {"imaps", "imap", "implicit", ""}, {"submission", "submission", "starttls", ""},
		{"pop3", "pop3", "starttls", ""}, {"sieve", "sieve", "starttls", ""}, {"imap-proxy", "imap", "starttls", ", proxy_nets: [127.6.0.0/16]"},
	} {
		fmt.Fprintf(&b, "    - {id: %s, protocol: %s, address: %q, trusted_nets: [127.9.0.0/16], tls: {mode: %s, %s}%s%s}\n", l.id, l.protocol, address(l.id), l.mode, files, l.more, s.logins)
	}
	fmt.Fprintf(&b, "  autoconfig: {address: %q, %s, servers: [{listener: imaps, host: mail.example.org, port: 993}]}\n", address("autoconfig"), files)
	b.WriteString("platforms:\n")
	for _, id := range f.ids {
		policy := "policy: none"
		if s.platforms[id] != nil {
			policy = fmt.Sprintf("policy: verified, ca_file: %q", filepath.Join(f.dir, "trust.pem"))
		}
		protocol, mail := "smtp", f.platforms[id].mail.Addr()
		if at := s.mailAt[id]; at != "" {
			mail = at
		}
		if id == "ox" || slices.Contains(s.lmtp, id) {
			protocol = "lmtp"
		}
		fmt.Fprintf(&b, "  - id: %s\n    outside: {protocol: %s, hosts: [%q], tls: {%s}}\n", id, protocol, mail, policy)
		for _, protocol := range protocols {
			fmt.Fprintf(&b, "    %s: {hosts: [%q], tls: {%s}, timeouts: {dial: 10s, greeting: 10s, command: 10s, login: 10s}}\n", protocol, f.platforms[id].logins[protocol].addr, policy)
		}
	}
	fmt.Fprintf(&b, "routing: {postmaster: postmaster@%s.example}\n", f.ids[0])
	fmt.Fprintf(&b, "admin:\n  address: %q\n  tls: {%s}\n  tokens:\n    - {name: test, person: Anna Berg, sha256: %x}\n%s", address("admin"), files, sha256.Sum256([]byte(token)), people())
	fmt.Fprintf(&b, "page: {address: %q, tls: {%s}}\n", address("page"), files)
	b.WriteString("log: {level: debug}\n")
	return b.String()
}

// api is a client of the API.
func (f *front) api() *admin.Client {
	f.t.Helper()
	c, err := admin.NewClient("https://"+f.addrs["admin"], token, f.transport())
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// tlsConfig is how honest clients look at the node's certificate.
func (f *front) tlsConfig() *tls.Config {
	return &tls.Config{RootCAs: f.authority.Pool(), ServerName: "127.0.0.1"}
}

func (f *front) transport() *http.Transport {
	return &http.Transport{TLSClientConfig: f.tlsConfig(), DisableKeepAlives: true}
}

// get asks the API's listener for a path that needs no token.
func (f *front) get(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+f.addrs["admin"]+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := f.transport().RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var b strings.Builder
	if _, err := fmt.Fprint(&b, resp.StatusCode, " "); err != nil {
		return "", err
	}
	var text [1 << 16]byte
	for {
		n, err := resp.Body.Read(text[:])
		b.Write(text[:n])
		if err != nil {
			break
		}
	}
	if resp.StatusCode != http.StatusOK {
		return b.String(), fmt.Errorf("%s: %s", path, resp.Status)
	}
	return b.String(), nil
}

func (f *front) ready(ctx context.Context) error {
	path := "/readyz"
	if len(f.ids) > 2 { // most of them are no good, and the node says so
		path = "/healthz"
	}
	_, err := f.get(ctx, path)
	return err
}

const listHeader = "address;directory_id;agency;kind;aliases;logins;source_address;source_login;target_address;target_login;platform\n"

// addAgency adds an agency with its mailboxes.
func (f *front) addAgency(id, target string) {
	f.t.Helper()
	domain := id + ".example"
	if _, err := f.api().AddAgency(f.t.Context(), admin.NewAgency{ID: id, Source: id, Target: target, Domains: []string{domain}, Reason: "test"}); err != nil {
		f.t.Fatal(err)
	}
	list := listHeader
	for _, local := range append([]string{"anna", "victim", "postmaster"}, f.locals...) {
		address := local + "@" + domain
		list += fmt.Sprintf("%s;%s;%s;user;;;;;;;\n", address, mailboxID(address), id)
	}
	if _, err := f.api().Import(f.t.Context(), strings.NewReader(list), "test", false); err != nil {
		f.t.Fatal(err)
	}
}

// mailboxID is the directory id of a mailbox, by its address.
func mailboxID(address string) string {
	sum := sha256.Sum256([]byte(address))
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// checkLog fails the test for what a node must never write.
func (f *front) checkLog() {
	races, err := filepath.Glob(filepath.Join(f.dir, "race.*"))
	if err != nil {
		f.t.Error(err)
	}
	for _, name := range races {
		text, _ := os.ReadFile(name)
		f.t.Errorf("data race in the node:\n%s", text)
	}
	log := f.Output()
	log = log[:strings.LastIndexByte(log, '\n')+1] // the node runs, and the last one may be under way
	for i, line := range strings.Split(log, "\n") {
		var record map[string]any
		if i == 0 || line == "" { // the first one may be cut
			continue
		}
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			f.t.Errorf("a line of the log is no record: %.500q", line)
			return
		}
		if message, _ := record["msg"].(string); strings.Contains(message, "panic") || record["level"] == "forged" {
			f.t.Errorf("log: %.1000s", line)
		}
	}
}

// heard returns all that the platforms have heard by logins and as envelopes.
func (f *front) heard() string {
	var b strings.Builder
	for id, p := range f.platforms {
		for _, c := range p.mail.Commands() {
			fmt.Fprintf(&b, "%s: %s\n", id, c.Line)
		}
		for protocol, l := range p.logins {
			if text := l.heard(); text != "" {
				fmt.Fprintf(&b, "%s %s: %s\n", id, protocol, text)
			}
		}
	}
	return b.String()
}

// status returns a line of the node's /proc/PID/status in bytes: VmRSS, memory in use, or VmHWM,
// the most since the start.
func (f *front) status(field string) int64 {
	f.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.PID()))
	if err != nil {
		f.t.Fatal(err)
	}
	m := regexp.MustCompile(field + `:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		f.t.Fatalf("no %s in %s", field, text)
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		f.t.Fatal(err)
	}
	return n << 10
}

// descriptors returns how many the node has open.
func (f *front) descriptors() int {
	f.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", f.PID()))
	if err != nil {
		f.t.Fatal(err)
	}
	return len(entries)
}

// waitFor waits until done says so.
func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	peers.WaitFor(t, patience, what, done)
}
