package peers

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// mailUID owns the mailboxes of Postfix and of Dovecot when the test runs as root; both
// refuse to deliver as root. The number is that of configs/peers.
const mailUID = 5000

// Postfix is a Postfix instance with directories of its own.
type Postfix struct {
	*Process
	Addr string // where its smtpd listens
	conf string // config_directory
	log  string
}

// MXOptions say how an MX relay differs from configs/peers/postfix-mx.cf.
type MXOptions struct {
	NextHop        string            // host:port that gets all mail; required
	LMTP           bool              // speak LMTP to it
	RecipientLimit int               // recipients per transaction; 0: 50, as in the example
	Settings       map[string]string // of main.cf; they win
}

// StartMX starts a Postfix that relays all mail to one place, as the MX in front of
// mailcutover does. What has to wait is tried again after a second.
func StartMX(t TB, o MXOptions) *Postfix {
	t.Helper()
	protocol := "smtp"
	if o.LMTP {
		protocol = "lmtp"
	}
	host, port, ok := strings.Cut(o.NextHop, ":")
	if !ok {
		t.Fatalf("Postfix as MX: next hop %q is not host:port", o.NextHop)
	}
	transport := fmt.Sprintf("%s:[%s]:%s", protocol, host, port)
	if o.LMTP {
		transport = fmt.Sprintf("lmtp:inet:[%s]:%s", host, port)
	}
	settings := map[string]string{
		"relay_transport":                     transport,
		"queue_run_delay":                     "1s",
		"minimal_backoff_time":                "1s",
		"maximal_backoff_time":                "2s",
		"transport_retry_time":                "1s",
		"smtp_helo_timeout":                   "30s",
		"lmtp_lhlo_timeout":                   "30s",
		"smtpd_tls_security_level":            "none",
		"smtpd_peername_lookup":               "no",
		"smtpd_client_event_limit_exceptions": "static:all",
	}
	if o.RecipientLimit > 0 {
		settings[protocol+"_destination_recipient_limit"] = fmt.Sprint(o.RecipientLimit)
	}
	maps.Copy(settings, o.Settings)
	return startPostfix(t, "postfix-mx.cf", settings)
}

// PostfixPlatform is a Postfix that keeps what it accepts in Maildirs.
type PostfixPlatform struct {
	*Postfix
	maildirs
}

// PostfixPlatformOptions say how a platform differs from configs/peers/postfix-source.cf.
type PostfixPlatformOptions struct {
	// Mailboxes, if not empty, are the only ones; others are refused with 550 5.1.1.
	Mailboxes []string
	Settings  map[string]string // of main.cf; they win
}

// StartPostfixPlatform starts a Postfix as source platform: it accepts every address of
// every domain and delivers into Maildirs.
func StartPostfixPlatform(t TB, o PostfixPlatformOptions) *PostfixPlatform {
	t.Helper()
	Need(t, "postfix")
	base := tempDir(t, "mail")
	if err := os.Chown(base, mailUID, mailUID); err != nil {
		t.Fatalf("Postfix platform: %v", err)
	}
	settings := map[string]string{
		"virtual_mailbox_base":  base,
		"smtpd_peername_lookup": "no",
	}
	if len(o.Mailboxes) > 0 {
		settings["virtual_mailbox_maps"] = "inline:{" + strings.Join(o.Mailboxes, "=all/,") + "=all/}"
	}
	maps.Copy(settings, o.Settings)
	return &PostfixPlatform{
		Postfix:  startPostfix(t, "postfix-source.cf", settings),
		maildirs: maildirs{base: base, mailbox: deliveredTo},
	}
}

// deliveredTo returns whose mailbox a message of virtual(8) is in, from the line that it
// puts on top.
func deliveredTo(_ string, raw []byte) string {
	for line := range bytes.Lines(raw) {
		if to, ok := bytes.CutPrefix(line, []byte("Delivered-To: ")); ok {
			return string(bytes.TrimSpace(to))
		}
	}
	return ""
}

// startPostfix starts an instance from the example main.cf with settings changed.
func startPostfix(t TB, main string, settings map[string]string) *Postfix {
	t.Helper()
	Need(t, "postfix")
	if os.Geteuid() != 0 {
		t.Fatalf("Postfix's master process needs root (master(8)); run the tests as root, or set SKIP_PEERS=1")
	}
	dir := tempDir(t, "postfix")
	p := &Postfix{
		Addr: freeAddr(t),
		conf: filepath.Join(dir, "etc"),
		log:  filepath.Join(dir, "maillog"),
	}
	for _, d := range []string{"etc", "queue", "data"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatalf("Postfix: %v", err)
		}
	}
	// The data directory belongs to the user that Debian made for Postfix.
	mustRun(t, "chown", "postfix", filepath.Join(dir, "data"))

	// Mail that the queue manager found locked goes back among the incoming one, and waits
	// there for its next waking: a second, not five minutes.
	services := strings.NewReplacer("\nsmtp      inet", "\n"+p.Addr+" inet", "\nqmgr      unix  n       -       n       300 ", "\nqmgr      unix  n       -       n       1 ").
		Replace(string(example(t, "postfix-master.cf")))
	writeFile(t, filepath.Join(p.conf, "master.cf"), []byte(services))
	writeFile(t, filepath.Join(p.conf, "main.cf"), example(t, main))
	edit := []string{"-c", p.conf, "-e",
		"queue_directory=" + filepath.Join(dir, "queue"),
		"data_directory=" + filepath.Join(dir, "data"),
		"maillog_file=" + p.log,
		"maillog_file_prefixes=" + dir,
		"inet_interfaces=127.0.0.1",
		"in_flow_delay=0", // each message would wait a second
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		edit = append(edit, name+"="+settings[name])
	}
	mustRun(t, "postconf", edit...)
	// Postfix 3.7 waits up to two seconds for a main.cf that was just written to be left
	// alone, each of its programs anew.
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(p.conf, "main.cf"), past, past); err != nil {
		t.Fatalf("Postfix: %v", err)
	}
	mustRun(t, "postfix", "-c", p.conf, "check") // makes the queue's directories

	t.Cleanup(func() { // registered before startProcess's: runs when Postfix has ended
		if t.Failed() {
			t.Logf("log of Postfix at %s:\n%s", p.Addr, p.Log())
		}
	})
	p.Process = startProcess(t, "Postfix "+main, p.Addr, func() *exec.Cmd {
		// -d: stay in the process group that Process made, and keep standard error.
		return exec.Command("/usr/lib/postfix/sbin/master", "-c", p.conf, "-d")
	}, main, "postfix-master.cf")
	return p
}

// Log returns what Postfix logged.
func (p *Postfix) Log() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Queued is a message in Postfix' queue, as postqueue(1) -j tells it.
type Queued struct {
	ID         string `json:"queue_id"`
	Queue      string `json:"queue_name"` // active, deferred, incoming, hold, maildrop
	Sender     string `json:"sender"`
	Size       int64  `json:"message_size"`
	Recipients []struct {
		Address string `json:"address"`
		Reason  string `json:"delay_reason"` // the next hop's last answer
	} `json:"recipients"`
}

// Queue returns the messages that Postfix still has to deliver.
func (p *Postfix) Queue(t TB) []Queued {
	t.Helper()
	var queue []Queued
	lines := bufio.NewScanner(strings.NewReader(mustRun(t, "postqueue", "-c", p.conf, "-j")))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var q Queued
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			t.Fatalf("read Postfix' queue: %q: %v", lines.Text(), err)
		}
		queue = append(queue, q)
	}
	if err := lines.Err(); err != nil {
		t.Fatalf("read Postfix' queue: %v", err)
	}
	return queue
}

// QueueEmpty reports whether Postfix has nothing left to deliver. It looks twice: showq(8) lists
// one queue after the other, and misses a message that moves meanwhile into one that it has
// listed. There it is found at once the next time, or where it was put back for a second.
func (p *Postfix) QueueEmpty(t TB) bool {
	t.Helper()
	for range 2 {
		if len(p.Queue(t)) > 0 {
			return false
		}
	}
	return true
}

// Flush makes Postfix try all waiting messages now.
func (p *Postfix) Flush(t TB) {
	t.Helper()
	mustRun(t, "postqueue", "-c", p.conf, "-f")
}
