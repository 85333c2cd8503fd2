package attack

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
)

// Q12: strangers hold every connection that the API and the page give, silently, in a request, or
// asking for what needs no right; people with tokens work on, and so does mail.
func TestDoorIsFlooded(t *testing.T) {
	t.Parallel()
	f := start(t, setup{shell: "ulimit -n 256"})
	const request = "GET /healthz HTTP/1.1\r\nHost: x\r\n"
	var flood []*wire
	defer func() {
		for _, w := range flood {
			w.conn.Close()
		}
	}()
	// One who was here before stays, whatever comes.
	kept := f.transport()
	kept.DisableKeepAlives = false
	defer kept.CloseIdleConnections()
	ask := func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+f.addrs["admin"]+"/v1/agencies", nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := kept.RoundTrip(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", resp.Status)
		}
		return nil
	}
	if err := ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	var coming sync.WaitGroup
	for i := range 180 {
		w, err := dial(f.addrs[[]string{"admin", "page"}[i%2]], stranger)
		if err != nil {
			t.Fatal(err)
		}
		flood = append(flood, w)
		coming.Go(func() { // each may have to go meanwhile
			switch i / 2 % 6 {
			case 0: // not a byte
			case 1: // half a handshake
				_ = w.send("\x16\x03\x01\x02\x00")
			case 2: // half a request
				if w.secure(f) == nil {
					_ = w.send(request)
				}
			default: // a whole one, and the connection kept: it may be idle for two minutes
				if w.secure(f) == nil && w.send(request+"\r\n") == nil {
					_, _ = w.until("HTTP/1.1 ")
				}
			}
		})
	}
	coming.Wait()
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err := f.api().Agencies(ctx)
		if err == nil {
			err = ask(ctx)
		}
		cancel()
		if err != nil {
			t.Fatalf("somebody with a token, on a connection of his own or on the one that he had: %v", err)
		}
	}
	// Mail has its own.
	honest := f.mustDial(t, "mx")
	err := honest.greet(upgrades[4])
	if err == nil {
		err = honest.send("MAIL FROM:<a@out.example>\r\nRCPT TO:<anna@exchange.example>\r\nDATA\r\n")
	}
	if err == nil {
		_, err = honest.until("354 ")
	}
	if err != nil {
		t.Errorf("an honest client: %v", err)
	}
}
