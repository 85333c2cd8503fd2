package peers

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
)

// DovecotOptions say how a Dovecot differs from configs/peers/dovecot.conf. The zero
// value has a mailbox for every address, with the password "secret".
type DovecotOptions struct {
	// Users, if not empty, are the only mailboxes (user@domain) and their passwords;
	// LMTP answers others with 550 5.1.1.
	Users map[string]string
	// Dressed, if not empty, is another example that includes it, such as dovecot-source.conf;
	// its certificate is CertFile with KeyFile.
	Dressed, CertFile, KeyFile string
	// First is put at the beginning of the configuration: of passdbs the first one counts.
	First string
	// Extra is put at the end of the configuration, where it wins.
	Extra string
	// Logins has POP3, ManageSieve and submission served too, and says to trust clients on
	// this host: they may tell in whose name they come (XCLIENT).
	Logins bool
	// Relay is where submission takes mail to, host and port; with Logins.
	Relay string
}

// Dovecot is a Dovecot with LMTP and IMAP.
type Dovecot struct {
	*Process
	maildirs
	LMTP       string // host and port
	IMAP       string // host and port
	POP3       string // host and port; with Logins
	Sieve      string // host and port; with Logins
	Submission string // host and port; with Logins
	conf       string
}

// StartDovecot starts a Dovecot as a platform.
func StartDovecot(t TB, o DovecotOptions) *Dovecot {
	t.Helper()
	Need(t, "dovecot")
	dir, base := tempDir(t, "dovecot"), tempDir(t, "mail")
	lmtp, imap := Port(t), Port(t)
	uid, gid := fmt.Sprint(os.Getuid()), fmt.Sprint(os.Getgid())
	settings := []string{
		string(example(t, "dovecot.conf")), // of two lines for a setting the last one counts
		"listen = 127.0.0.1",
		"auth_failure_delay = 0", // 2 s by default
		"base_dir = " + filepath.Join(dir, "run"),
		"state_dir = " + filepath.Join(dir, "state"),
		fmt.Sprintf("service lmtp {\n inet_listener lmtp {\n  port = %d\n }\n}", lmtp),
		fmt.Sprintf("service imap-login {\n inet_listener imap {\n  port = %d\n }\n}", imap),
	}
	if os.Getuid() == 0 {
		uid, gid = fmt.Sprint(mailUID), fmt.Sprint(mailUID)
		if err := os.Chown(base, mailUID, mailUID); err != nil {
			t.Fatalf("Dovecot: %v", err)
		}
	} else {
		me, err := user.Current()
		if err != nil {
			t.Fatalf("Dovecot: %v", err)
		}
		settings = append(settings,
			"default_login_user = "+me.Username, "default_internal_user = "+me.Username,
			"default_internal_group = "+gid, "first_valid_uid = "+uid,
			"service anvil {\n chroot =\n}", "service imap-login {\n chroot =\n}")
	}
	settings = append(settings, "mail_uid = "+uid, "mail_gid = "+gid)

	var pop3, sieve, submission int
	if o.Logins {
		pop3, sieve, submission = Port(t), Port(t), Port(t)
		settings = append(settings, loginServices(pop3, sieve, submission, o.Relay)...)
	}

	conf := strings.Join(settings, "\n") + "\n"
	conf = strings.Replace(conf, "uid=5000 gid=5000 home=/var/mail/users/%u",
		fmt.Sprintf("uid=%s gid=%s home=%s/%%u", uid, gid, base), 1)
	if len(o.Users) > 0 {
		passwd := filepath.Join(dir, "users")
		writeFile(t, passwd, passwdFile(o.Users, uid, gid, base))
		conf = strings.Replace(conf, "driver = static", "driver = passwd-file", 2)
		conf = strings.Replace(conf, "args = password=secret", "args = "+passwd, 1)
		conf = strings.Replace(conf, fmt.Sprintf("args = uid=%s gid=%s home=%s/%%u allow_all_users=yes", uid, gid, base), "args = "+passwd, 1)
	}
	main, examples := "dovecot.conf", []string{"dovecot.conf"}
	if o.Dressed != "" {
		main, examples = o.Dressed, append(examples, o.Dressed)
		conf = strings.NewReplacer(
			"!include dovecot.conf\n", conf,
			"/etc/ssl/certs/ssl-cert-snakeoil.pem", o.CertFile, "/etc/ssl/private/ssl-cert-snakeoil.key", o.KeyFile,
		).Replace(string(example(t, o.Dressed)))
	}
	conf = o.First + "\n" + conf + o.Extra + "\n"

	d := &Dovecot{
		maildirs: maildirs{base: base, mailbox: func(dir string, _ []byte) string { return dir }},
		LMTP:     fmt.Sprintf("127.0.0.1:%d", lmtp),
		IMAP:     fmt.Sprintf("127.0.0.1:%d", imap),
		conf:     filepath.Join(dir, main),
	}
	if o.Logins {
		d.POP3, d.Sieve, d.Submission = fmt.Sprintf("127.0.0.1:%d", pop3), fmt.Sprintf("127.0.0.1:%d", sieve), fmt.Sprintf("127.0.0.1:%d", submission)
	}
	writeFile(t, d.conf, []byte(conf))
	path, err := lookPath("dovecot")
	if err != nil {
		t.Fatalf("Dovecot: %v", err)
	}
	listeners := []string{d.LMTP, d.IMAP}
	if o.Logins {
		listeners = append(listeners, d.POP3, d.Sieve, d.Submission)
	}
	d.Process = &Process{
		name: "dovecot", addr: d.LMTP, out: &tail{max: dovecotLogKept}, examples: examples,
		make: func() *exec.Cmd {
			removeLocks(base)
			return exec.Command(path, "-F", "-c", d.conf)
		},
		asks: func(ctx context.Context) error { return listening(ctx, listeners) },
	}
	d.own(t)
	return d
}

// removeLocks removes the lock files below a directory. A Dovecot that is killed may leave
// one, and the next waits two minutes for it.
func removeLocks(dir string) {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.HasSuffix(e.Name(), ".lock") {
			_ = os.Remove(path)
		}
		return nil
	})
}

// dovecotLogKept is how many bytes of its log are kept: tests look there for who logged in.
const dovecotLogKept = 4 << 20

// listening returns nil if all of the addresses accept connections: the master opens its
// listeners one after the other.
func listening(ctx context.Context, addrs []string) error {
	for _, addr := range addrs {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		if err := conn.Close(); err != nil {
			return err
		}
	}
	return nil
}

// loginServices are the settings of what is served with DovecotOptions.Logins.
func loginServices(pop3, sieve, submission int, relay string) []string {
	settings := []string{
		"protocols = imap lmtp pop3 sieve submission",
		"login_trusted_networks = 127.0.0.0/8",
		"hostname = dovecot.example",
		"service anvil {\n unix_listener anvil-auth-penalty {\n  mode = 0\n }\n}", // else a wrong password slows the next login
		fmt.Sprintf("service pop3-login {\n inet_listener pop3 {\n  port = %d\n }\n inet_listener pop3s {\n  port = 0\n }\n}", pop3),
		fmt.Sprintf("service managesieve-login {\n inet_listener sieve {\n  port = %d\n }\n}", sieve),
		fmt.Sprintf("service submission-login {\n inet_listener submission {\n  port = %d\n }\n}", submission),
	}
	if host, port, ok := strings.Cut(relay, ":"); ok {
		settings = append(settings, "submission_relay_host = "+host, "submission_relay_port = "+port)
	}
	if os.Getuid() != 0 {
		settings = append(settings, "service pop3-login {\n chroot =\n}", "service managesieve-login {\n chroot =\n}", "service submission-login {\n chroot =\n}")
	}
	return settings
}

// passwdFile makes a passwd-file as Dovecot reads it:
// user:password:uid:gid:gecos:home:shell:extra
func passwdFile(users map[string]string, uid, gid, base string) []byte {
	var b strings.Builder
	for name, password := range users {
		fmt.Fprintf(&b, "%s:{PLAIN}%s:%s:%s::%s::\n", name, password, uid, gid, filepath.Join(base, name))
	}
	return []byte(b.String())
}

// DoveadmCommand returns the command that runs doveadm(1) on this Dovecot.
func (d *Dovecot) DoveadmCommand(t TB) []string {
	t.Helper()
	path, err := lookPath("doveadm")
	if err != nil {
		t.Fatalf("Dovecot: %v", err)
	}
	return []string{path, "-c", d.conf}
}

// Doveadm runs doveadm(1) on this Dovecot and returns its output.
func (d *Dovecot) Doveadm(t TB, args ...string) string {
	t.Helper()
	return mustRun(t, "doveadm", append([]string{"-c", d.conf}, args...)...)
}
