package hook

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
)

// Check says what is wrong with the hook's settings, without running it.
func (h *Hook) Check() error {
	switch {
	case !slices.Contains(Kinds(), h.Kind):
		return fmt.Errorf("hook %q: want one of %v", h.Kind, Kinds())
	case (len(h.Command) > 0) == (h.URL != ""):
		return fmt.Errorf("hook %s: want a command or a url, one of them", h.Kind)
	case h.URL != "":
		return h.checkURL()
	case !filepath.IsAbs(h.Command[0]):
		return fmt.Errorf("hook %s: command %q: want its whole path", h.Kind, h.Command[0])
	}
	info, err := os.Stat(h.Command[0])
	if err != nil {
		return fmt.Errorf("hook %s: %w", h.Kind, err)
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("hook %s: command %q: want a program that may be run", h.Kind, h.Command[0])
	}
	if info.Mode()&0o002 != 0 {
		return fmt.Errorf("hook %s: command %q can be written by everybody: want mode 0755 or less", h.Kind, h.Command[0])
	}
	return nil
}

func (h *Hook) checkURL() error {
	u, err := url.Parse(h.URL)
	if err != nil || u.Host == "" {
		return fmt.Errorf("hook %s: url: want https://HOST/PATH", h.Kind)
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme != "https" && !(u.Scheme == "http" && (u.Hostname() == "localhost" || ip.IsLoopback())) {
		return fmt.Errorf("hook %s: url to %s is %s: want https, since mailboxes and a token go there", h.Kind, u.Host, u.Scheme)
	}
	return nil
}
