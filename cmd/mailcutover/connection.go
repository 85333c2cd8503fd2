package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

// Environment variables of the commands. There is no flag for the token itself: what
// stands in a command line, every process on the machine can read.
const (
	envAPI       = "MAILCUTOVER_API"
	envToken     = "MAILCUTOVER_TOKEN"
	envTokenFile = "MAILCUTOVER_TOKEN_FILE"
)

const (
	defaultAPI    = "http://127.0.0.1:8025"
	maxTokenBytes = 4 << 10
)

// connection is how commands reach the node, and how they print.
type connection struct {
	api, tokenFile, caFile string
	plaintext              bool
	json, noColor          bool
}

// newConnection adds the flags that all commands have.
func newConnection(root *cobra.Command) *connection {
	c := &connection{}
	f := root.PersistentFlags()
	f.StringVar(&c.api, "api", "", "node's API (default "+defaultAPI+", or $"+envAPI+")")
	f.StringVar(&c.tokenFile, "token-file", "", "file with the token (or $"+envTokenFile+", or the token itself in $"+envToken+")")
	f.StringVar(&c.caFile, "ca-file", "", "certificates that the API's is checked against, PEM (default: the system's)")
	f.BoolVar(&c.plaintext, "allow-plaintext", false, "send the token without TLS to another host")
	f.BoolVar(&c.json, "json", false, "print JSON instead of tables")
	f.BoolVar(&c.noColor, "no-color", false, "no colours (also with $NO_COLOR)")
	return c
}

// client returns a client of the node's API.
func (c *connection) client() (*admin.Client, error) {
	return c.clientAt(c.base())
}

// base is the address of the node's API.
func (c *connection) base() string { return firstOf(c.api, os.Getenv(envAPI), defaultAPI) }

// clientAt returns a client of the API at this address.
func (c *connection) clientAt(base string) (*admin.Client, error) {
	if _, err := admin.NewClient(base, "", nil); err != nil {
		return nil, &usageError{err: err, command: "mailcutover"}
	}
	u, _ := url.Parse(base) // it is one
	if u.Scheme == "http" && !c.plaintext && !isLoopback(u.Hostname()) {
		return nil, &usageError{command: "mailcutover", err: withHint(
			fmt.Errorf("the token would go to %s without TLS", u.Hostname()), "use https, or say --allow-plaintext")}
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	transport, err := c.transport()
	if err != nil {
		return nil, err
	}
	client, err := admin.NewClient(base, token, transport)
	if err != nil {
		return nil, &usageError{err: err, command: "mailcutover"}
	}
	return client, nil
}

// transport is how the node's API is reached.
func (c *connection) transport() (*http.Transport, error) {
	transport := &http.Transport{
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, TLSHandshakeTimeout: 10 * time.Second,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if c.caFile != "" {
		pem, err := os.ReadFile(c.caFile)
		if err != nil {
			return nil, fmt.Errorf("--ca-file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--ca-file %s: no certificate in it", c.caFile)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return transport, nil
}

// token reads the token from where the caller says it is.
func (c *connection) token() (string, error) {
	path := firstOf(c.tokenFile, os.Getenv(envTokenFile))
	if path == "" {
		if t := os.Getenv(envToken); t != "" {
			return t, nil
		}
		return "", &usageError{command: "mailcutover", err: withHint(errors.New("no token"),
			"name a file with --token-file, or set $"+envToken+"; mailcutover token new makes one")}
	}
	f, err := os.Open(path)
	if err != nil {
		return "", withHint(fmt.Errorf("token: %w", err), "mailcutover token new --out FILE makes one; --token-file or $"+envTokenFile+" names it")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTokenBytes+1))
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	t := strings.TrimSpace(string(b))
	if t == "" || len(b) > maxTokenBytes || strings.ContainsAny(t, " \r\n\t") {
		return "", withHint(fmt.Errorf("token: %s is not a file with one token", path), "mailcutover token new --out FILE makes one")
	}
	return t, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// command returns a command that talks to the node. What no operator should overlook,
// the node's last answer says, and it is printed beside the output.
func (c *connection) command(cmd *cobra.Command, do func(cmd *cobra.Command, client *admin.Client, args []string) error) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		err = do(cmd, client, args)
		if approval, lab := client.Approval(); approval == "none" {
			note := "approval: none (one person is enough to switch an agency)"
			if lab {
				note += ", lab: no real mail is at stake"
			}
			fmt.Fprintln(cmd.ErrOrStderr(), note)
		}
		return err
	}
	return cmd
}
