package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"mailcutover/admin"
	"mailcutover/internal/config"
	"mailcutover/mailboxlist"
	"mailcutover/test/peers"
)

// recipient is the one to whom smtp-source writes; it is a mailbox of the table.
const recipient = "person7@agency.example"

// tableMailboxes is how many the table of a node under load has.
const tableMailboxes = 1000

// startWithin is the longest that a node may take to be ready.
const startWithin = 30 * time.Second

// settings of a node.
type settings struct {
	dir         string
	port, admin int
	token       string
	platform    string // host:port of the platform, for both of them
	target      string // host:port of the target platform; empty: platform
	names       int    // held1@agency.example and so on, dealt to the mailboxes
	cert, key   string // files; empty: no TLS
	extra       string // of the configuration

	imap                string // host:port of the platform for logins by IMAP, for both of them; empty: there are none
	imapPort, imapsPort int    // where clients connect to, with imapsPort by TLS
}

func newSettings(t peers.TB, platform string) settings {
	dir, err := os.MkdirTemp("", "mailcutover-bench-")
	if err != nil {
		t.Fatalf("directory of the node: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Logf("remove the node's directory: %v", err)
		}
	})
	return settings{dir: dir, port: peers.Port(t), admin: peers.Port(t), token: rand.Text(), platform: platform}
}

// data is the node's own directory.
func (s *settings) data() string { return filepath.Join(s.dir, "data") }

// addr is where the listener is.
func (s *settings) addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// write writes the configuration and returns its file: defaults but for what a single
// client machine and a single platform on loopback need.
func (s *settings) write(t peers.TB) string {
	tls := ""
	if s.cert != "" {
		tls = fmt.Sprintf("    tls: {mode: starttls, cert_file: %q, key_file: %q}\n", s.cert, s.key)
	}
	logins, endpoint := "", ""
	if s.imap != "" {
		limits := "limits: {connections: 10000, connections_per_address: 0}"
		logins = fmt.Sprintf(`logins:
  listeners:
    - {id: imap, protocol: imap, address: "127.0.0.1:%d", %s, tls: {mode: none, required: false}}
    - {id: imaps, protocol: imap, address: "127.0.0.1:%d", %s, tls: {mode: implicit, cert_file: %q, key_file: %q}}
`, s.imapPort, limits, s.imapsPort, limits, s.cert, s.key)
		endpoint = fmt.Sprintf(", imap: {hosts: [%q], tls: {policy: none}}", s.imap)
	}
	target := cmp.Or(s.target, s.platform)
	hash := config.HashToken(s.token)
	text := fmt.Sprintf(`node: %s
data: %q
approval: none
lab: true
listeners:
  - id: mx
    address: %q
    limits: {connections: 10000, connections_per_address: 10000}
%s%splatforms:
  - {id: exchange, outside: {protocol: smtp, hosts: [%q], tls: {policy: none}}%s}
  - {id: ox, outside: {protocol: smtp, hosts: [%q], tls: {policy: none}}%s}
routing: {postmaster: %s}
admin:
  address: "127.0.0.1:%d"
  tokens: [{name: bench, person: bench, sha256: %x}]
log: {level: info, format: json}
%s`, nodeName, s.data(), s.addr(), tls, logins, s.platform, endpoint, target, endpoint, recipient, s.admin, hash[:], s.extra)
	file := filepath.Join(s.dir, "mailcutover.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatalf("write the node's configuration: %v", err)
	}
	return file
}

// api returns a client of the node's API.
func (s *settings) api(t peers.TB) *admin.Client {
	api, err := admin.NewClient(fmt.Sprintf("http://127.0.0.1:%d", s.admin), s.token, nil)
	if err != nil {
		t.Fatalf("client of the node's API: %v", err)
	}
	return api
}

// fill gives the node an agency, as soon as it answers.
func (s *settings) fill(t peers.TB) {
	ctx, cancel := context.WithTimeout(t.Context(), startWithin)
	defer cancel()
	api := s.api(t)
	for {
		_, err := api.AddAgency(ctx, admin.NewAgency{ID: "agency", Source: "exchange", Target: "ox", Domains: []string{"agency.example"}, Reason: "bench"})
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("fill the node's table: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	var list bytes.Buffer
	out := csv.NewWriter(&list)
	columns := mailboxlist.Columns()
	rows := [][]string{columns}
	for i := range tableMailboxes {
		cells := map[string]string{
			"address": fmt.Sprintf("person%d@agency.example", i), "agency": "agency", "kind": "user",
			"directory_id": mailboxID(i), "aliases": s.aliases(i),
		}
		row := make([]string, len(columns))
		for c, name := range columns {
			row[c] = cells[name]
		}
		rows = append(rows, row)
	}
	if err := out.WriteAll(rows); err != nil {
		t.Fatalf("write the list of mailboxes: %v", err)
	}
	if _, err := api.Import(ctx, &list, "bench", false); err != nil {
		t.Fatalf("import the list of mailboxes: %v", err)
	}
}

// aliases returns those of a mailbox: the numbers that smtp-source -N puts in front of an
// address go round the mailboxes.
func (s *settings) aliases(mailbox int) string {
	var all []string
	for n := mailbox + 1; n <= s.names; n += tableMailboxes {
		all = append(all, fmt.Sprintf("%dheld@agency.example", n))
	}
	return strings.Join(all, " ")
}

// scrape reads /metrics once, as Prometheus would.
func (s *settings) scrape(ctx context.Context) error {
	_, err := s.metrics(ctx)
	return err
}

// metrics reads /metrics.
func (s *settings) metrics(ctx context.Context) (string, error) {
	return s.get(ctx, "/metrics")
}

// get reads a page of the node's that needs no token.
func (s *settings) get(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", s.admin, path), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept-Encoding", "identity") // what is asked often costs the node little
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("read the node's %s: %w", path, err)
	}
	text, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return "", fmt.Errorf("read the node's %s: %w", path, err)
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("read the node's %s: status %s", path, res.Status)
	}
	return string(text), nil
}

// sum adds up a metric's values over its labels, those that have all of the labels.
func (s *settings) sum(ctx context.Context, name string, labels ...string) (float64, error) {
	text, err := s.metrics(ctx)
	if err != nil {
		return 0, err
	}
	total := 0.0
line:
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(rest, l) {
				continue line
			}
		}
		fields := strings.Fields(rest)
		v, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			return 0, fmt.Errorf("the node's metric %s: %w", name, err)
		}
		total += v
	}
	return total, nil
}

// build builds the program that operators run, and returns its file.
func build(t peers.TB, dir, pkg string) string {
	file, err := peers.Build(t.Context(), dir, pkg, false)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return file
}

// startNode builds mailcutover and starts it as a process of its own, with its log in a
// file, and fills its table. It returns its process id.
func startNode(t peers.TB, s settings) int {
	pid, _ := s.launch(t, build(t, s.dir, "./cmd/mailcutover"))
	s.fill(t)
	return pid
}

// launch starts a program as a node. kill ends it at once; so does the test's end.
func (s *settings) launch(t peers.TB, program string) (pid int, kill func()) {
	file := s.write(t)
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatalf("the node's log: %v", err)
	}
	defer log.Close()
	cmd := exec.Command(program, "serve", "--config", file)
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start mailcutover: %v", err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	t.Cleanup(func() {
		kill()
		if t.Failed() {
			if b, err := os.ReadFile(log.Name()); err == nil {
				t.Logf("log of mailcutover:\n%s", b[max(0, len(b)-16<<10):])
			}
		}
	})
	return cmd.Process.Pid, kill
}

// mailboxID returns the directory's id of a mailbox of the table.
func mailboxID(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012x", i+1) }
