package e2e

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/rollback/operation"
	"mailcutover/test/peers"
)

// patience is how long a test waits for what must come, on a busy machine.
const patience = 30 * time.Second

// program builds mailcutover, once in a test process.
var program = sync.OnceValues(func() (string, error) {
	return peers.Build(context.Background(), programDir, "./cmd/mailcutover", raceEnabled)
})

// programDir is where the program is while the tests run.
var programDir string

// TestMain lets more tests run at a time than there are processors: most of the time they
// wait, for Postfix to try again or for a lease to end.
func TestMain(m *testing.M) { os.Exit(peers.Main(m, &programDir, 8)) }

// platform is one of a node's configuration. The texts are YAML in flow style.
type platform struct {
	id, addr string
	lmtp     bool
	more     string // further keys of the platform: "connection_limit: 2s"
	limits   string // of its endpoint: "connections: 4, max_age: 1s"
	timeouts string // of its endpoint: "dot: 1s"
}

// setup is a node's configuration, as far as tests differ. The texts are YAML.
type setup struct {
	platforms []platform
	listener  string // further keys of both listeners, in flow style
	redis     string // URL of the table; empty: the embedded one
	lease     string // in flow style
	spool     string // in flow style
	more      string // further lines at the top level
	data      string // its data directory; empty: one of its own
	name      string // empty: node.example.org
}

// node is mailcutover as a process of its own.
type node struct {
	*peers.Process
	t    testing.TB
	dir  string
	smtp string // host and port of the listener that speaks SMTP
	lmtp string // and of the one that speaks LMTP
	api  *admin.Client
	url  string
	env  []string // for commands

	setup setup
}

const token = "mc_e2e_0123456789abcdef0123456789abcdef"

// startNode starts a node. It ends with the test.
func startNode(t testing.TB, s setup) *node {
	t.Helper()
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: peers.TempDir(t, "node"), setup: s}
	port := func() string { return fmt.Sprintf("127.0.0.1:%d", peers.Port(t)) }
	n.smtp, n.lmtp = port(), port()
	api := port()
	n.url = "http://" + api
	n.write("config.yaml", n.config())
	n.write("token", token+"\n")
	n.env = append(os.Environ(),
		"MAILCUTOVER_API="+n.url, "MAILCUTOVER_TOKEN_FILE="+filepath.Join(n.dir, "token"),
		"GORACE=atexit_sleep_ms=0 log_path="+filepath.Join(n.dir, "race"))
	if n.api, err = admin.NewClient(n.url, token, &http.Transport{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the process's own, which was registered later
		races, _ := filepath.Glob(filepath.Join(n.dir, "race.*"))
		for _, name := range races {
			text, _ := os.ReadFile(name)
			t.Errorf("data race in the node:\n%s", text)
		}
	})
	n.Process = peers.StartProgram(t, peers.Program{
		Name: "mailcutover", Kept: 4 << 20,
		Make: func() *exec.Cmd {
			cmd := exec.Command(bin, "serve", "--config", filepath.Join(n.dir, "config.yaml"))
			cmd.Env = n.env
			return cmd
		},
		Ready: n.ready,
	})
	return n
}

// ready asks /readyz.
func (n *node) ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.url+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/readyz: %s", resp.Status)
	}
	return nil
}

func (n *node) write(name, text string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// config returns the node's configuration file.
func (n *node) config() string {
	var b strings.Builder
	fmt.Fprintf(&b, "node: %s\ndata: %s\napproval: none\nlab: true\n", cmp.Or(n.setup.name, "node.example.org"), n.dataDir())
	if n.setup.redis != "" {
		fmt.Fprintf(&b, "table: {redis: {url: %q, allow_no_password: true}}\n", n.setup.redis)
	}
	if n.setup.lease != "" {
		fmt.Fprintf(&b, "lease: {%s}\n", n.setup.lease)
	}
	if n.setup.spool != "" {
		fmt.Fprintf(&b, "spool: {%s}\n", n.setup.spool)
	}
	b.WriteString(n.setup.more)
	more := ""
	if n.setup.listener != "" {
		more = ", " + n.setup.listener
	}
	fmt.Fprintf(&b, "listeners:\n  - {id: mx, address: %q, xforward_nets: [127.0.0.1/32]%s}\n", n.smtp, more)
	fmt.Fprintf(&b, "  - {id: mx-lmtp, protocol: lmtp, address: %q, xforward_nets: [127.0.0.1/32]%s}\n", n.lmtp, more)
	b.WriteString("platforms:\n")
	for _, p := range n.setup.platforms {
		protocol := "smtp"
		if p.lmtp {
			protocol = "lmtp"
		}
		fmt.Fprintf(&b, "  - id: %s\n    outside: {protocol: %s, hosts: [%q], tls: {policy: none}, limits: {%s}, timeouts: {%s}}\n", p.id, protocol, p.addr, p.limits, p.timeouts)
		if p.more != "" {
			fmt.Fprintf(&b, "    %s\n", p.more)
		}
	}
	b.WriteString("routing: {postmaster: postmaster@unmoved.example}\n")
	fmt.Fprintf(&b, "admin:\n  address: %q\n  tokens:\n    - {name: test, person: Anna Berg, sha256: %x}\n",
		strings.TrimPrefix(n.url, "http://"), sha256.Sum256([]byte(token)))
	b.WriteString("log: {level: debug}\n")
	return b.String()
}

// command runs a command of the program against the node, and returns what it printed
// and its exit code.
func (n *node) command(args ...string) (stdout, stderr string, code int) {
	n.t.Helper()
	bin, err := program()
	if err != nil {
		n.t.Fatal(err)
	}
	cmd := exec.CommandContext(n.t.Context(), bin, args...)
	cmd.Env = n.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		n.t.Fatalf("mailcutover %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must runs a command that must succeed, and returns its output.
func (n *node) must(args ...string) string {
	n.t.Helper()
	out, errs, code := n.command(args...)
	if code != 0 {
		n.t.Fatalf("mailcutover %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// addAgency adds an agency on exchange that moves to ox, with mailboxes of these local
// parts in a domain that is called as it is.
func (n *node) addAgency(id string, locals ...string) {
	n.t.Helper()
	n.addAgencyOn(id, "exchange", "ox", locals...)
}

func (n *node) addAgencyOn(id, source, target string, locals ...string) {
	n.t.Helper()
	ctx := n.t.Context()
	if _, err := n.api.AddAgency(ctx, admin.NewAgency{ID: id, Source: source, Target: target, Domains: []string{id + ".example"}, Reason: "test"}); err != nil {
		n.t.Fatal(err)
	}
	if len(locals) == 0 {
		return
	}
	if _, err := n.api.Import(ctx, strings.NewReader(list(id, locals...)), "test", false); err != nil {
		n.t.Fatal(err)
	}
}

const listHeader = "address;directory_id;agency;kind;aliases;logins;source_address;source_login;target_address;target_login;platform\n"

// list is a list of mailboxes, each with a directory id made of its address.
func list(agency string, locals ...string) string {
	var b strings.Builder
	b.WriteString(listHeader)
	for _, local := range locals {
		address := local + "@" + agency + ".example"
		b.WriteString(row(address, agency))
	}
	return b.String()
}

func row(address, agency string) string {
	sum := sha256.Sum256([]byte(address))
	return fmt.Sprintf("%s;%x-%x-%x-%x-%x;%s;user;;;;;;;\n", address, sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16], agency)
}

// switchAgency cuts an agency over, or brings it back, by the API, and returns the
// operation when it has ended.
func (n *node) switchAgency(ctx context.Context, kind operation.Kind, id string) (admin.Operation, error) {
	a, err := n.api.Agency(ctx, id)
	if err != nil {
		return admin.Operation{}, err
	}
	if a.Tightness != "armed" {
		if a, err = n.api.Arm(ctx, id, a.Epoch, "test"); err != nil {
			return admin.Operation{}, err
		}
	}
	op, err := n.api.Start(ctx, kind, id, a.Epoch, "test")
	if err != nil {
		return op, err
	}
	return n.api.Watch(ctx, op.ID, func(admin.Operation) {})
}

// mustSwitch is switchAgency for a switch that must be done.
func (n *node) mustSwitch(kind operation.Kind, id string) admin.Operation {
	n.t.Helper()
	op, err := n.switchAgency(n.t.Context(), kind, id)
	if err != nil || op.Step != string(operation.StepDone) {
		n.t.Fatalf("%s of %s: %+v, %v", kind, id, op, err)
	}
	return op
}

// waitFor waits until done says so.
func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	peers.WaitFor(t, patience, what, done)
}
