package campaign

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"

	"mailcutover/test/peers"
)

// hub is the address of those who send, read and operate.
const hub = "10.77.0.1"

// nowhere is a link address that nobody on the bridge has: what is sent to it is lost without a word,
// as in a network that drops packets.
const nowhere = "02:00:00:00:00:99"

// Network is hosts on one bridge, each in a network namespace of its own. It belongs to the
// network namespace of this process, which has to be its own, and goes with it. Its methods are
// safe for concurrent use.
type Network struct {
	mu   sync.Mutex
	cuts map[cut]bool
}

// cut is a direction in which nothing arrives.
type cut struct{ from, to string }

// LayNetwork makes the bridge, with the hub's address and these others on it.
func LayNetwork(also ...string) (*Network, error) {
	n := &Network{cuts: make(map[cut]bool)}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return nil, fmt.Errorf("lay a network: %w", err)
	}
	lines := []string{
		"mount -t tmpfs tmpfs /run/netns",
		"ip link set lo up",
		"ip link add mcbridge type bridge forward_delay 0",
		"ip addr add " + hub + "/16 dev mcbridge",
		"ip link set mcbridge up",
	}
	for _, ip := range also {
		lines = append(lines, "ip addr add "+ip+"/16 dev mcbridge")
	}
	return n, do(lines...)
}

// do runs command lines.
func do(lines ...string) error {
	for _, line := range lines {
		words := strings.Fields(line)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, out)
		}
	}
	return nil
}

// Host puts a host onto the network.
func (n *Network) Host(name, ip string) (peers.Host, error) {
	err := do(
		"ip netns add "+name,
		"ip link add to-"+name+" type veth peer name eth0 netns "+name,
		"ip link set to-"+name+" master mcbridge up",
		"ip -n "+name+" addr add "+ip+"/16 dev eth0",
		"ip -n "+name+" link set lo up",
		"ip -n "+name+" link set eth0 up",
	)
	return peers.Host{IP: ip, Into: []string{"nsenter", "--net=/run/netns/" + name}}, err
}

// name is the namespace of a host.
func nameOf(h peers.Host) string {
	if len(h.Into) == 0 {
		return ""
	}
	return strings.TrimPrefix(h.Into[1], "--net=/run/netns/")
}

// Cut loses whatever a host sends to these addresses from now on, until Mend.
func (n *Network) Cut(from peers.Host, to ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, ip := range to {
		if err := do("ip -n " + nameOf(from) + " neigh replace " + ip + " lladdr " + nowhere + " dev eth0 nud permanent"); err != nil {
			return err
		}
		n.cuts[cut{nameOf(from), ip}] = true
	}
	return nil
}

// Mend ends what Cut began, for a host.
func (n *Network) Mend(from peers.Host) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.cuts {
		if c.from != nameOf(from) {
			continue
		}
		if err := do("ip -n " + c.from + " neigh del " + c.to + " dev eth0"); err != nil {
			return err
		}
		delete(n.cuts, c)
	}
	return nil
}

// Unplug takes a host off the network, and Plug puts it back.
func (n *Network) Unplug(h peers.Host) error { return do("ip link set to-" + nameOf(h) + " down") }

// Plug ends Unplug.
func (n *Network) Plug(h peers.Host) error { return do("ip link set to-" + nameOf(h) + " up") }
