package peers

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// eximProgram isn't among the system's programs: tools/peers unpacks it beside them.
const eximProgram = unpacked + "exim4-daemon-light/usr/sbin/exim4"

// Exim is an Exim that keeps what it accepts in Maildirs.
type Exim struct {
	*Process
	maildirs
	Addr string // host and port of its SMTP
}

// eximMailbox is the one Maildir: a name that comes from outside is tainted in Exim 4.96, and no
// file may be called by it. Whose message it is stands in a line on top.
const eximMailbox = "all"

// StartExim starts an Exim that takes mail for every address. It wants root.
func StartExim(t TB) *Exim {
	t.Helper()
	Need(t, "exim")
	if os.Geteuid() != 0 {
		t.Fatalf("Exim takes a configuration of its own from root alone (-C); run the tests as root, or set SKIP_PEERS=1")
	}
	dir, base := tempDir(t, "exim"), tempDir(t, "mail")
	port := Port(t)
	conf := filepath.Join(dir, "exim.conf")
	log := filepath.Join(dir, "mainlog")
	writeFile(t, conf, []byte(strings.NewReplacer("DIR", dir, "BASE", filepath.Join(base, eximMailbox), "PORT", fmt.Sprint(port), "EXIM", eximProgram).Replace(eximConfig)))
	mustRun(t, "chown", "Debian-exim", dir, base) // a user that tools/peers makes, as the package would
	t.Cleanup(func() {                            // runs when Exim has ended
		if t.Failed() {
			text, _ := os.ReadFile(log)
			t.Logf("log of Exim:\n%s", text)
		}
	})
	e := &Exim{Addr: fmt.Sprintf("127.0.0.1:%d", port), maildirs: maildirs{base: base, mailbox: envelopeTo}}
	e.Process = startProcess(t, "Exim", e.Addr, func() *exec.Cmd { return exec.Command(eximProgram, "-C", conf, "-bdf") })
	return e
}

// envelopeTo returns the recipient that Exim notes among the lines that it puts on top.
func envelopeTo(_ string, raw []byte) string {
	for line := range bytes.Lines(raw) {
		if to, ok := bytes.CutPrefix(line, []byte("Envelope-to: ")); ok {
			return string(bytes.TrimSpace(to))
		}
	}
	return ""
}

// eximConfig asks nobody about anything, and changes nothing in a message.
const eximConfig = `exim_path = EXIM
keep_environment =
spool_directory = DIR/spool
log_file_path = DIR/%slog
pid_file_path = DIR/exim.pid
primary_hostname = exim.example
disable_ipv6
local_interfaces = 127.0.0.1
daemon_smtp_ports = PORT
tls_advertise_hosts =
host_lookup =
rfc1413_hosts =
chunking_advertise_hosts = *
accept_8bitmime = true
smtputf8_advertise_hosts =
smtp_accept_max = 0
smtp_accept_queue_per_connection = 0
deliver_drop_privilege
acl_smtp_rcpt = all
begin acl
all:
  accept control = dkim_disable_verify
begin routers
all:
  driver = accept
  transport = maildir
begin transports
maildir:
  driver = appendfile
  directory = BASE
  maildir_format
  envelope_to_add
  user = Debian-exim
`
