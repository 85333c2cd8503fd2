package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"mailcutover/test/peers"
)

// What logins are compared with, each configured as its documentation has it for this use, with
// as many threads or processes as there are processors here.

// loginRival starts a program with a configuration file, and waits until both of its ports listen.
func loginRival(t peers.TB, name, dir, config string, args []string, plain, secure int) *loginContender {
	file := filepath.Join(dir, name+".conf")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatalf("configuration of %s: %v", name, err)
	}
	c := &loginContender{name: name, plain: fmt.Sprintf("127.0.0.1:%d", plain), tls: fmt.Sprintf("127.0.0.1:%d", secure)}
	process := peers.StartProgram(t, peers.Program{
		Name: name,
		Make: func() *exec.Cmd { return exec.Command(args[0], append(args[1:], file)...) },
		Ready: func(ctx context.Context) error {
			for _, addr := range []string{c.plain, c.tls} {
				conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
				if err != nil {
					return err
				}
				conn.Close()
			}
			return nil
		},
	})
	c.pid = process.PID()
	return c
}

func startLoginHAProxy(t peers.TB, g *loginGround) *loginContender {
	dir := peers.TempDir(t, "haproxy")
	both, err := os.ReadFile(g.cert.cert)
	if err == nil {
		var key []byte
		if key, err = os.ReadFile(g.cert.key); err == nil {
			err = os.WriteFile(filepath.Join(dir, "both.pem"), append(both, key...), 0o600)
		}
	}
	if err != nil {
		t.Fatalf("certificate of HAProxy: %v", err)
	}
	plain, secure := peers.Port(t), peers.Port(t)
	return loginRival(t, "HAProxy", dir, fmt.Sprintf(`global
    maxconn 9700
    tune.ssl.cachesize 0
    tune.ssl.default-dh-param 2048
defaults
    mode tcp
    timeout connect 5s
    timeout client 5m
    timeout server 5m
listen imap
    bind 127.0.0.1:%d
    bind 127.0.0.1:%d ssl crt %s/both.pem ssl-min-ver TLSv1.3 curves X25519 no-tls-tickets
    server backend %s
`, plain, secure, dir, g.platform), []string{"haproxy", "-db", "-f"}, plain, secure)
}

func startLoginNginx(t peers.TB, g *loginGround) *loginContender {
	dir := peers.TempDir(t, "nginx")
	host, port, err := net.SplitHostPort(g.platform)
	if err != nil {
		t.Fatalf("nginx: %v", err)
	}
	plain, secure, authority := peers.Port(t), peers.Port(t), peers.Port(t)
	// Whom it asks where a user is: itself, by HTTP. What that costs is a part of a login.
	return loginRival(t, "nginx", dir, fmt.Sprintf(`load_module /usr/lib/nginx/modules/ngx_mail_module.so;
worker_processes auto;
daemon off;
pid %[1]s/pid;
error_log %[1]s/log warn;
worker_rlimit_nofile 20000;
events { worker_connections 19900; }
mail {
    server_name mail.example;
    auth_http http://127.0.0.1:%[2]d/;
    imap_capabilities IMAP4rev1 LITERAL+ IDLE SASL-IR;
    imap_auth plain;
    timeout 10m;
    proxy_timeout 1h;
    ssl_certificate %[3]s;
    ssl_certificate_key %[4]s;
    ssl_protocols TLSv1.3;
    ssl_ecdh_curve X25519;
    ssl_session_cache off;
    ssl_session_tickets off;
    server { listen 127.0.0.1:%[5]d; protocol imap; proxy on; }
    server { listen 127.0.0.1:%[6]d ssl; protocol imap; proxy on; }
}
http {
    access_log off;
    server {
        listen 127.0.0.1:%[2]d;
        add_header Auth-Status OK;
        add_header Auth-Server %[7]s;
        add_header Auth-Port %[8]s;
        location / { return 200; }
    }
}
`, dir, authority, g.cert.cert, g.cert.key, plain, secure, host, port), []string{"nginx", "-e", filepath.Join(dir, "log"), "-c"}, plain, secure)
}

func startLoginDovecot(t peers.TB, g *loginGround) *loginContender {
	host, port, err := net.SplitHostPort(g.platform)
	if err != nil {
		t.Fatalf("Dovecot: %v", err)
	}
	secure := peers.Port(t)
	d := peers.StartDovecot(t, peers.DovecotOptions{
		First: fmt.Sprintf("passdb {\n driver = static\n args = proxy=y host=%s port=%s nopassword=y\n}\n", host, port),
		Extra: strings.Join([]string{
			"ssl = yes", "ssl_cert = <" + g.cert.cert, "ssl_key = <" + g.cert.key,
			"ssl_min_protocol = TLSv1.3", "ssl_curve_list = X25519", "ssl_options = no_ticket",
			"log_path = " + filepath.Join(filepath.Dir(g.cert.cert), "dovecot.log"),
			"mail_max_userip_connections = 100000",
			"default_client_limit = 20000",
			"service anvil {\n client_limit = 20000\n}", "service auth {\n client_limit = 20000\n}",
			fmt.Sprintf("service imap-login {\n service_count = 0\n process_min_avail = %d\n process_limit = %d\n client_limit = 9700\n inet_listener imaps {\n  port = %d\n  ssl = yes\n }\n}", runtime.NumCPU(), runtime.NumCPU(), secure),
		}, "\n") + "\n",
	})
	c := &loginContender{name: "Dovecot", plain: d.IMAP, tls: fmt.Sprintf("127.0.0.1:%d", secure), pid: d.PID()}
	peers.WaitFor(t, startWithin, "listener for TLS", func() bool {
		conn, err := net.DialTimeout("tcp", c.tls, time.Second)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	return c
}

// startLoginNode starts mailcutover.
func startLoginNode(t peers.TB, g *loginGround) *loginContender {
	s := newSettings(t, peers.StartSink(t).Addr) // no mail is sent
	s.cert, s.key = g.cert.cert, g.cert.key
	s.imap, s.imapPort, s.imapsPort = g.platform, peers.Port(t), peers.Port(t)
	pid, _ := s.launch(t, g.program)
	s.fill(t)
	c := &loginContender{
		name: "mailcutover", pid: pid, scrape: s.scrape,
		plain: fmt.Sprintf("127.0.0.1:%d", s.imapPort), tls: fmt.Sprintf("127.0.0.1:%d", s.imapsPort),
	}
	peers.WaitFor(t, startWithin, "login that is taken", func() bool { return loginOnce(c.plain, false) == nil })
	return c
}
