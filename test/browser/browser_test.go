package browser

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/smtp"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/internal/config"
	"mailcutover/internal/daemon"
	"mailcutover/test/peers"
)

const (
	operator = "olga-token"
	approver = "ada-token"
)

// startNode starts a node with a page, two agencies and two people, and returns the page's URL.
func startNode(t *testing.T) string {
	t.Helper()
	platforms := [2]*peers.Dovecot{peers.StartDovecot(t, peers.DovecotOptions{First: masterUser}), peers.StartDovecot(t, peers.DovecotOptions{First: masterUser})}
	mx := fmt.Sprintf("127.0.0.1:%d", peers.Port(t))
	dir := t.TempDir()
	path := filepath.Join(dir, "mailcutover.yaml")
	text := fmt.Sprintf(`node: mx1.example
data: %s
approval: required
lab: true
listeners: [{id: mx, address: "%s"}]
platforms:
  - {id: exchange, connection_limit: 1s, outside: {protocol: lmtp, hosts: ["%s"]}, mailboxes: {hosts: ["%s"], tls: {policy: none}, auth: {user: admin, password_env: MASTER}}}
  - {id: ox, connection_limit: 1s, outside: {protocol: lmtp, hosts: ["%s"]}, mailboxes: {hosts: ["%s"], tls: {policy: none}, auth: {user: admin, password_env: MASTER}}}
recall: {settle: 100ms}
routing: {postmaster: anna@health.example}
page: {address: "127.0.0.1:0", progress_key_env: PROGRESS}
admin:
  address: "127.0.0.1:0"
  tokens:
    - {name: olga, person: Olga Oper, sha256: %x, roles: [operator, planner, viewer]}
    - {name: ada, person: Ada Approver, sha256: %x, roles: [approver, viewer]}
`, filepath.Join(dir, "data"), mx, platforms[0].LMTP, platforms[0].IMAP, platforms[1].LMTP, platforms[1].IMAP, hashOf(operator), hashOf(approver))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{"PROGRESS=0123456789abcdef", "MASTER=master"}
	cfg, err := config.Load(path, environ)
	if err != nil {
		t.Fatal(err)
	}
	d, err := daemon.Start(t.Context(), cfg, daemon.Options{Logger: slog.New(slog.DiscardHandler), Environ: environ, Version: admin.Version{Version: "test"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := d.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	api, err := admin.NewClient("http://"+d.AdminAddr().String(), operator, nil)
	if err != nil {
		t.Fatal(err)
	}
	list := "address,directory_id,agency,kind,aliases,logins,source_address,source_login,target_address,target_login,platform\n"
	for i, id := range []string{"health", "parks"} {
		if _, err := api.AddAgency(t.Context(), admin.NewAgency{ID: id, Source: "exchange", Target: "ox", Domains: []string{id + ".example"}, Reason: "test"}); err != nil {
			t.Fatal(err)
		}
		list += fmt.Sprintf("anna@%s.example,6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c%d,%s,user,,,,,,,\n", id, i, id)
	}
	if _, err := api.Import(t.Context(), strings.NewReader(list), "test", false); err != nil {
		t.Fatal(err)
	}
	if _, err := api.ProposeWave(t.Context(), admin.NewWave{Name: "first", Reason: "test", Definition: admin.WaveDefinition{
		Agencies: []string{"parks"}, Owner: "team parks", Zone: "Europe/Berlin", Bake: "1h",
		Windows: []admin.WaveWindow{{Days: []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday"}, From: "00:00", To: "00:00"}},
	}}); err != nil {
		t.Fatal(err)
	}
	letter := "Message-ID: <sought@out.example>\r\nFrom: s@out.example\r\nSubject: secret\r\n\r\nhello\r\n"
	peers.WaitFor(t, time.Minute, "mail to be taken", func() bool {
		return smtp.SendMail(mx, nil, "s@out.example", []string{"anna@health.example"}, []byte(letter)) == nil
	})
	return "http://" + d.PageAddr().String()
}

// masterUser lets a user of ours into every mailbox.
const masterUser = `
auth_master_user_separator = *
passdb {
  driver = static
  master = yes
  args = password=master
}`

func hashOf(token string) []byte {
	h := config.HashToken(token)
	return h[:]
}

// progressLink returns where the staff's page of agency health is, as the operator reads it.
func progressLink(t *testing.T, base string) string {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar, Timeout: 20 * time.Second}
	res, err := c.PostForm(base+"/signin", url.Values{"token": {operator}, "next": {"/agencies/health"}})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`/progress/health/[\w-]+`).Find(b)
	if link == nil {
		t.Fatalf("no link to the progress page:\n%s", b)
	}
	return string(link)
}

func TestWalk(t *testing.T) {
	peers.Need(t, "browser")
	run := func(limit time.Duration, env []string, name string, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = append(os.Environ(), env...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		return out.String(), err
	}
	if out, err := run(3*time.Minute, nil, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"); err != nil {
		t.Fatalf("install the browser's driver: %v\n%s", err, out)
	}
	base := startNode(t)
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal(err)
	}
	shots := os.Getenv("BROWSER_SHOTS")
	if shots != "" {
		if err := os.MkdirAll(shots, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out, err := run(8*time.Minute, []string{"BASE=" + base, "OPERATOR=" + operator, "APPROVER=" + approver, "CHROMIUM=" + chromium, "SHOTS=" + shots, "PROGRESS=" + progressLink(t, base)}, "node", "walk.mjs")
	t.Log(out)
	if err != nil {
		t.Errorf("walk: %v", err)
	}
	if n := strings.Count(out, "\nok ") + 1; n < 13 {
		t.Errorf("%d steps were walked, want 13", n)
	}
}
