package main

import (
	"bytes"
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
	cert, key   string // files; empty: no TLS
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

// addr is where the listener is.
func (s *settings) addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// write writes the configuration and returns its file: defaults but for what a single
// client machine and a single platform on loopback need.
func (s *settings) write(t peers.TB) string {
	tls := ""
	if s.cert != "" {
		tls = fmt.Sprintf("    tls: {mode: starttls, cert_file: %q, key_file: %q}\n", s.cert, s.key)
	}
	hash := config.HashToken(s.token)
	text := fmt.Sprintf(`node: mx1.bench.example
data: %q
approval: none
lab: true
listeners:
  - id: mx
    address: %q
    limits: {connections: 10000, connections_per_address: 10000}
%splatforms:
  - {id: exchange, outside: {protocol: smtp, hosts: [%q], tls: {policy: none}}}
  - {id: ox, outside: {protocol: smtp, hosts: [%q], tls: {policy: none}}}
routing: {postmaster: %s}
admin:
  address: "127.0.0.1:%d"
  tokens: [{name: bench, person: bench, sha256: %x}]
log: {level: info, format: json}
`, filepath.Join(s.dir, "data"), s.addr(), tls, s.platform, s.platform, recipient, s.admin, hash[:])
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
			"directory_id": fmt.Sprintf("00000000-0000-4000-8000-%012x", i+1),
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

// scrape reads /metrics once, as Prometheus would.
func (s *settings) scrape(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/metrics", s.admin), nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("scrape the node's metrics: %w", err)
	}
	_, err = io.Copy(io.Discard, res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return fmt.Errorf("scrape the node's metrics: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("scrape the node's metrics: status %s", res.Status)
	}
	return nil
}

// build builds the program that operators run, and returns its file.
func build(t peers.TB, dir, pkg string) string {
	root, err := peers.Root()
	if err != nil {
		t.Fatalf("build %s: %v", pkg, err)
	}
	file := filepath.Join(dir, filepath.Base(pkg))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", file, pkg)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return file
}

// startNode builds mailcutover and starts it as a process of its own, with its log in a
// file, and fills its table. It returns its process id.
func startNode(t peers.TB, s settings) int {
	file := s.write(t)
	program := build(t, s.dir, "./cmd/mailcutover")
	log, err := os.Create(filepath.Join(s.dir, "log"))
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
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		if t.Failed() {
			if b, err := os.ReadFile(log.Name()); err == nil {
				t.Logf("log of mailcutover:\n%s", b[max(0, len(b)-16<<10):])
			}
		}
	})
	s.fill(t)
	return cmd.Process.Pid
}
