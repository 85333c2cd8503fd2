package daemon

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"mailcutover/admin"
	"mailcutover/internal/config"
	"mailcutover/page"
	"mailcutover/proxy/listen"
	"mailcutover/spool"
)

// pageServer is the web page and its socket.
type pageServer struct {
	page   *page.Page
	socket net.Listener
}

// pageCertificate is the key of the page's certificate among the listeners' ones; no listener
// can have it as its id.
const pageCertificate = "web page"

// startPage serves the page, if there is to be one. The API must be there.
func (d *Daemon) startPage(cfg *config.Config) error {
	set := &cfg.Page
	if set.Address == "" {
		return nil
	}
	server := d.admin.server
	o := page.Options{
		Identify: server.Identify,
		As:       func(id admin.Identity) *admin.Client { return server.As(id, "page") },
		Progress: func() *admin.Client {
			return server.As(admin.Identity{Person: "progress page", By: "progress page", Roles: []admin.Role{admin.RoleViewer}}, "progress-page")
		},
		ProgressKey: func() string { return d.config.Load().Page.ProgressKey.Reveal() },
		Measures:    d.measures,
		Node:        cfg.Node, Secure: set.TLS.CertFile != "", Lab: cfg.Lab, Logger: d.logger,
	}
	if d.issuer != nil && cfg.Admin.SignOn.OIDC.RedirectURL != "" {
		o.SignOn = d.issuer
	}
	p, err := page.New(o)
	if err != nil {
		return err
	}
	socket, err := net.Listen("tcp", set.Address)
	if err != nil {
		return fmt.Errorf("web page: %w", err)
	}
	socket = d.boundPage(socket)
	if set.TLS.CertFile != "" {
		cert := new(certificate)
		if err := cert.load(set.TLS.CertFile, set.TLS.KeyFile); err != nil {
			_ = socket.Close()
			return fmt.Errorf("web page: %w", err)
		}
		d.certificates[pageCertificate] = cert
		strict := listen.NewTLS(func() *tls.Config { return cert.config.Load() })
		socket = tls.NewListener(socket, &tls.Config{
			MinVersion:         tls.VersionTLS12,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return strict.Config(), nil },
		})
	}
	d.page = &pageServer{page: p, socket: socket}
	d.logger.Info("listening", "listener", "page", "address", socket.Addr().String())
	d.part("web page", func() error { return p.Serve(socket) })
	return nil
}

// stopPage ends the page.
func (d *Daemon) stopPage(ctx context.Context) error {
	if d.page == nil {
		return nil
	}
	return d.page.page.Shutdown(ctx)
}

// PageAddr returns the address of the web page; nil: there is none.
func (d *Daemon) PageAddr() net.Addr {
	if d.page == nil {
		return nil
	}
	return d.page.socket.Addr()
}

// measures counts what the page's charts show.
func (d *Daemon) measures() page.Measures {
	counts, _ := d.spool.Counts()
	m := page.Measures{Delivered: d.metrics.Delivered(), Held: counts.Of(spool.StateHeld)}
	if d.loginProxy != nil {
		m.Sessions = d.loginProxy.Counts().Joined
	}
	return m
}
