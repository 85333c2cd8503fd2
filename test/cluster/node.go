package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"mailcutover/admin"
	"mailcutover/ledger"
	"mailcutover/spool"
	"mailcutover/test/peers"
)

// token is that of everybody who operates a node, and secondToken that of who approves it.
const (
	token       = "mc_cluster_0123456789abcdef0123456789abcd"
	secondToken = "mc_cluster_fedcba9876543210fedcba98765432"
)

// MasterPassword is that of the account that nodes read mailboxes with.
const MasterPassword = "master"

// Node is mailcutover as a process of its own.
type Node struct {
	*peers.Process
	Index int
	Name  string
	SMTP  string // host and port of its listener
	LMTP  string // likewise; empty: none
	// IMAP and Submission are those of its listeners for logins; empty: none.
	IMAP, Submission string
	URL              string // of its API
	API              *admin.Client
	Second           *admin.Client // of another person, who approves; with TwoPeople

	// Redis is the wire to Redis; nil with Sentinels, which name the servers themselves.
	Redis *Wire
	// To has the wires to the platforms; nil where nodes are connected directly.
	To map[string]*Wire

	host  peers.Host
	dir   string
	disk  string // directory of its data
	env   []string
	pages *http.Client // of its pages that need no token
}

// prepare makes what a node needs on disk.
func (c *Cluster) prepare(t peers.TB, index int) *Node {
	host := c.o.Ground.node(index)
	at := func() string { return fmt.Sprintf("%s:%d", host.Address(), peers.Port(t)) }
	n := &Node{
		Index: index, Name: fmt.Sprintf("mx%d.cluster.example", index+1),
		SMTP: at(), dir: peers.TempDir(t, "cluster"), To: make(map[string]*Wire), host: host,
	}
	n.disk = filepath.Join(n.dir, "data")
	if c.o.Ground != nil {
		n.disk = c.o.Ground.Data[index]
	}
	api := at()
	scheme, secure := c.secureAPI(t, n)
	n.URL, n.pages = scheme+"://"+api, &http.Client{Transport: c.transport()}
	var err error
	if n.API, err = admin.NewClient(n.URL, token, c.transport()); err != nil {
		t.Fatalf("client of node %s: %v", n.Name, err)
	}
	if n.Second, err = admin.NewClient(n.URL, secondToken, c.transport()); err != nil {
		t.Fatalf("client of node %s: %v", n.Name, err)
	}
	url := c.Servers[0].URL()
	if !c.o.Direct && c.o.Replicas == 0 {
		n.Redis = NewWire(t, c.Servers[0].Addr)
		url = strings.Replace(url, c.Servers[0].Addr, n.Redis.Addr(), 1)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "node: %s\ndata: %s\napproval: %s\nlab: true\n", n.Name, n.data(), map[bool]string{false: "none", true: "required"}[c.o.TwoPeople])
	fmt.Fprintf(&b, "table:\n  redis:\n    url: %q\n    allow_no_password: true\n    allow_plaintext: true\n    timeout: 2s\n", url)
	if c.o.Replicas > 0 {
		fmt.Fprintf(&b, "    replicas: %d\n    sentinel: {master: %s, addresses: [", c.o.Replicas, peers.SentinelName)
		for i, s := range c.Sentinels {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%q", s.Addr)
		}
		b.WriteString("]}\n")
	}
	fmt.Fprintf(&b, "lease: {settled: %s, armed: %s, margin: %s}\n", c.o.Settled, c.o.Armed, c.o.Margin)
	if !strings.HasPrefix(c.o.More, "spool:") { // which may have its own
		b.WriteString("spool: {retry: {first: 1s, max: 2s}}\n")
	}
	fmt.Fprintf(&b, "listeners:\n  - {id: mx, address: %q, limits: {connections: 10000, connections_per_address: 10000}}\n", n.SMTP)
	if c.o.LMTP {
		n.LMTP = at()
		fmt.Fprintf(&b, "  - {id: inside, protocol: lmtp, address: %q}\n", n.LMTP)
	}
	b.WriteString("platforms:\n")
	if c.o.Logins {
		n.IMAP, n.Submission = at(), at()
	}
	for _, id := range []string{Exchange, OX} {
		addr := c.addresses[id]
		if !c.o.Direct {
			n.To[id] = NewWire(t, addr)
			addr = n.To[id].Addr()
		}
		protocol := "smtp"
		if c.o.Mailboxes != nil {
			protocol = "lmtp"
		}
		fmt.Fprintf(&b, "  - id: %s\n    outside: {protocol: %s, hosts: [%q], tls: {policy: none}, limits: {backoff: 20ms, backoff_max: 100ms, max_age: %s}}\n", id, protocol, addr, c.o.Limit/4)
		fmt.Fprintf(&b, "    connection_limit: %s\n", c.o.Limit)
		if d := c.o.Mailboxes[id]; d != nil {
			fmt.Fprintf(&b, "    mailboxes: {hosts: [%q], tls: %s, auth: {user: admin, password_file: %q}, retry: {first: 100ms, max: 1s}}\n", d.IMAP, c.o.Ground.loginTLS(), filepath.Join(n.dir, "master"))
		}
		if c.o.Logins {
			for protocol, at := range map[string]string{"imap": c.Inboxes[id].Addr(), "submission": c.Outboxes[id].Addr()} {
				fmt.Fprintf(&b, "    %s: {hosts: [%q], tls: %s, connection_limit: %s}\n", protocol, at, c.o.Ground.loginTLS(), c.o.Limit)
			}
		}
	}
	if c.o.Logins {
		b.WriteString("logins:\n  wait: 3s\n  spread: 200ms\n  listeners:\n")
		for protocol, at := range map[string]string{"imap": n.IMAP, "submission": n.Submission} {
			fmt.Fprintf(&b, "    - {id: %s, protocol: %[1]s, address: %q, tls: {mode: none, required: false}}\n", protocol, at)
		}
	}
	fmt.Fprintf(&b, "routing: {postmaster: postmaster@unmoved.example}\nlog: {level: info}\nadmin:\n  address: %q\n%s  tokens:\n    - {name: test, person: Anna Berg, sha256: %x}\n    - {name: second, person: Ben Cole, sha256: %x}\n",
		api, secure, sha256.Sum256([]byte(token)), sha256.Sum256([]byte(secondToken)))
	if c.o.Mailboxes != nil || c.o.Peers {
		fmt.Fprintf(&b, "  peer: {secret_file: %q%s}\n", filepath.Join(n.dir, "secret"), c.peerCA())
	}
	b.WriteString(c.o.More)
	for name, text := range map[string]string{
		"config.yaml": b.String(), "token": token + "\n", "master": MasterPassword + "\n", "secret": "between-the-nodes-0123456789abcdef\n",
	} {
		if err := os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o600); err != nil {
			t.Fatalf("node %s: %v", n.Name, err)
		}
	}
	n.env = append(os.Environ(),
		"MAILCUTOVER_API="+n.URL, "MAILCUTOVER_TOKEN_FILE="+filepath.Join(n.dir, "token"),
		"GORACE=atexit_sleep_ms=0 log_path="+filepath.Join(n.dir, "race"))
	return n
}

// run starts the node's process.
func (c *Cluster) run(t peers.TB, n *Node) {
	t.Cleanup(func() { // after the process's own, which is registered later
		races, _ := filepath.Glob(filepath.Join(n.dir, "race.*"))
		for _, name := range races {
			text, _ := os.ReadFile(name)
			t.Fatalf("data race in node %s:\n%s", n.Name, text)
		}
	})
	n.Process = peers.StartProgram(t, peers.Program{
		Name: n.Name, Kept: 16 << 20,
		Make: func() *exec.Cmd {
			cmd := n.host.Command(c.o.Program, "serve", "--config", filepath.Join(n.dir, "config.yaml"))
			cmd.Env = n.env
			return cmd
		},
		Ready: n.Ready,
	})
}

func (n *Node) data() string { return n.disk }

// Data is the node's directory for all that it keeps.
func (n *Node) Data() string { return n.data() }

// Page returns a page of the node's that needs no token, such as /metrics.
func (n *Node) Page(ctx context.Context, path string) (string, error) { return n.get(ctx, path) }

// Ready returns nil if the node says that it may decide.
func (n *Node) Ready(ctx context.Context) error {
	_, err := n.get(ctx, "/readyz")
	return err
}

// get reads a page that needs no token.
func (n *Node) get(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL+path, nil)
	if err != nil {
		return "", err
	}
	res, err := n.pages.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s of node %s: %s: %s", path, n.Name, res.Status, text)
	}
	return string(text), nil
}

// Agree has one person propose something, the other one approve it, and the first one begin it.
func (n *Node) Agree(ctx context.Context, what admin.NewProposal) (admin.Started, error) {
	p, err := n.API.Propose(ctx, what)
	if err != nil {
		return admin.Started{}, err
	}
	if _, err := n.Second.Approve(ctx, p.ID, p.Digest, "read"); err != nil {
		return admin.Started{}, err
	}
	return n.API.StartProposal(ctx, p.ID)
}

// Held returns how many messages are in the node's spool; an error if it doesn't answer.
func (n *Node) Held(ctx context.Context) (float64, error) {
	text, err := n.get(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	const name = "mailcutover_spool_messages"
	for line := range strings.Lines(text) {
		var v float64
		if k, err := fmt.Sscanf(line, name+" %g", &v); err == nil && k == 1 {
			return v, nil
		}
	}
	return 0, fmt.Errorf("node %s has no metric %s", n.Name, name)
}

// Command runs a command of the program against the node, and returns what it printed
// and its exit code; -1: it could not be run.
func (n *Node) Command(ctx context.Context, program string, args ...string) (output string, code int) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = n.env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err.Error(), -1
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// readLedger adds what the ledger of a stopped node has to a record.
func (n *Node) readLedger(ctx context.Context, r *Record) error {
	l, err := ledger.Open(ledger.Options{Dir: filepath.Join(n.data(), "ledger"), Boot: ledger.BootID(filepath.Join(n.data(), "ledger"))})
	if err != nil {
		return err
	}
	defer l.Close()
	for rec, err := range l.Find(ctx, ledger.Query{}) {
		if err != nil {
			return err
		}
		for i := range rec.Recipients {
			if rec.Local && strings.HasPrefix(rec.Answer(i).Text, spool.StateWaiting.String()) {
				r.Waited[rec.Transaction] = true
			}
			if rec.Local && rec.Answer(i).Result != ledger.ResultNotAcknowledged {
				continue // nothing went to a platform
			}
			switch rec.Answer(i).Result {
			case ledger.ResultInDoubt, ledger.ResultNotAcknowledged, ledger.ResultPending:
				r.Doubts[rec.Transaction]++
			}
			if rcpt := &rec.Recipients[i]; rcpt.Agency != "" && !rec.Local {
				r.Routes[Route{string(rcpt.Agency), rcpt.Epoch.String(), string(rec.Platform)}] = true
			}
		}
	}
	return nil
}

// left returns how many recipients are still in the spool of a stopped node, by state.
func (n *Node) left() (map[string]int, error) {
	s, err := spool.Open(spool.Options{Dir: filepath.Join(n.data(), "spool"), Node: n.Name})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	states := make(map[string]int)
	s.Each(spool.Filter{}, func(e spool.Entry) bool {
		if !e.State.Final() {
			states[e.State.String()]++
		}
		return true
	})
	return states, nil
}
