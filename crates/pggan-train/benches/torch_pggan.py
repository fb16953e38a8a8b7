"""Independent PyTorch implementation of Progressive GAN (paper / official-repo structure).

Written from the paper and the facts of the official code, as the peer of `cargo xtask bench --compare torch`: it runs
in turn with ours, on the same threads.
Networks are pure functions of a dict of tensors, so that f32/f64, eager, channels_last,
torch.func + torch.compile all share one definition.

Parameter names follow the official variable scopes; layouts are PyTorch's:
  conv  weight [O, I, kh, kw]   (official TF: [kh, kw, I, O])
  Conv0_up weight: canonical "nearest-upsample x2 then conv2d(pad 1)" weight [O, I, 3, 3].
       official fused TF variable [kh, kw, O, I] = W[O, I, 2-kh, 2-kw]  (spatially flipped!)
  Conv1_down weight [O, I, 3, 3]: "conv2d(pad 1) then 2x2 mean, THEN bias + lrelu" (official fused_scale=True).
  dense weight [out, in]        (official TF: [in, out])
"""
import math, time, json, sys, os, argparse, resource, statistics
import torch
import torch.nn.functional as F

SQ2 = math.sqrt(2.0)


class Cfg:
    def __init__(self, resolution=128, num_channels=3, fmap_base=8192, fmap_decay=1.0, fmap_max=512,
                 latent_size=None, label_size=0, mbstd_group=4, fused_d=True,
                 up_impl='naive', down_impl='naive'):
        self.resolution, self.num_channels = resolution, num_channels
        self.fmap_base, self.fmap_decay, self.fmap_max = fmap_base, fmap_decay, fmap_max
        self.label_size, self.mbstd_group = label_size, mbstd_group
        # fused_d: architecture switch. True = conv -> mean2x2 -> bias -> lrelu (official fused_scale=True),
        #          False = conv -> bias -> lrelu -> mean2x2 (official fused_scale=False, paper table 2, GAN zoo)
        self.fused_d = fused_d
        self.up_impl, self.down_impl = up_impl, down_impl       # how the same maths is evaluated
        self.rlog2 = int(math.log2(resolution))
        assert 2 ** self.rlog2 == resolution and resolution >= 4
        self.latent_size = latent_size or self.nf(0)

    def nf(self, stage):
        return min(int(self.fmap_base / (2.0 ** (stage * self.fmap_decay))), self.fmap_max)


def g_spec(c):
    """-> {name: (weight shape, gain, fan_in)}"""
    s = {}
    n = c.nf
    s['4x4/Dense'] = ([n(1) * 16, c.latent_size + c.label_size], SQ2 / 4, c.latent_size + c.label_size)
    s['4x4/Conv'] = ([n(1), n(1), 3, 3], SQ2, 9 * n(1))
    s['ToRGB_lod%d' % (c.rlog2 - 2)] = ([c.num_channels, n(1), 1, 1], 1.0, n(1))
    for r in range(3, c.rlog2 + 1):
        R = '%dx%d' % (2 ** r, 2 ** r)
        s[R + '/Conv0_up'] = ([n(r - 1), n(r - 2), 3, 3], SQ2, 9 * n(r - 2))
        s[R + '/Conv1'] = ([n(r - 1), n(r - 1), 3, 3], SQ2, 9 * n(r - 1))
        s['ToRGB_lod%d' % (c.rlog2 - r)] = ([c.num_channels, n(r - 1), 1, 1], 1.0, n(r - 1))
    return s


def d_spec(c):
    s = {}
    n = c.nf
    for r in range(c.rlog2, 2, -1):
        R = '%dx%d' % (2 ** r, 2 ** r)
        s['FromRGB_lod%d' % (c.rlog2 - r)] = ([n(r - 1), c.num_channels, 1, 1], SQ2, c.num_channels)
        s[R + '/Conv0'] = ([n(r - 1), n(r - 1), 3, 3], SQ2, 9 * n(r - 1))
        s[R + '/Conv1_down'] = ([n(r - 2), n(r - 1), 3, 3], SQ2, 9 * n(r - 1))
    s['FromRGB_lod%d' % (c.rlog2 - 2)] = ([n(1), c.num_channels, 1, 1], SQ2, c.num_channels)
    mb = 1 if c.mbstd_group > 1 else 0
    s['4x4/Conv'] = ([n(1), n(1) + mb, 3, 3], SQ2, 9 * (n(1) + mb))
    s['4x4/Dense0'] = ([n(0), n(1) * 16], SQ2, n(1) * 16)
    s['4x4/Dense1'] = ([1 + c.label_size, n(0)], 1.0, n(0))
    return s


def init(spec, gen=None, dtype=torch.float32, bias_std=0.0):
    p = {}
    for k, (shape, gain, fan) in spec.items():
        p[k + '/weight'] = torch.randn(shape, generator=gen, dtype=torch.float32).to(dtype)
        p[k + '/bias'] = (torch.randn(shape[0] if not k.startswith('4x4/Dense') or k != '4x4/Dense' else shape[0] // 16,
                                      generator=gen, dtype=torch.float32) * bias_std).to(dtype)
    return p


def scales(spec):
    return {k: gain / math.sqrt(fan) for k, (_, gain, fan) in spec.items()}


def lrelu(x):
    return F.leaky_relu(x, 0.2)


def pixelnorm(x):
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


def up2(x):
    return F.interpolate(x, scale_factor=2.0, mode='nearest')


def down2(x):
    return F.avg_pool2d(x, 2)


def fuse4(w):
    w = F.pad(w, [1, 1, 1, 1])
    return w[:, :, 1:, 1:] + w[:, :, :-1, 1:] + w[:, :, 1:, :-1] + w[:, :, :-1, :-1]


def up_conv(x, w, b, impl):
    if impl == 'naive':
        return F.conv2d(up2(x), w, b, padding=1)
    if impl == 'transpose':      # 4x4 stride-2 transposed conv: 2.25x fewer MACs
        k = fuse4(w.flip(2, 3)).transpose(0, 1)
        return F.conv_transpose2d(x, k, b, stride=2, padding=1)
    if impl == 'phase':          # four 2x2 convs as one 2x2 conv with 4*O outputs, then interleave
        O = w.shape[0]
        # rows: phase 0 taps (w0, w1+w2) on (i-1, i); phase 1 taps (w0+w1, w2) on (i, i+1)
        a0 = torch.stack([w[:, :, 0], w[:, :, 1] + w[:, :, 2]], 2)
        a1 = torch.stack([w[:, :, 0] + w[:, :, 1], w[:, :, 2]], 2)
        ks = []
        for a in (a0, a1):
            ks.append(torch.stack([a[..., 0], a[..., 1] + a[..., 2]], 3))
            ks.append(torch.stack([a[..., 0] + a[..., 1], a[..., 2]], 3))
        k = torch.cat(ks, 0)
        y = F.conv2d(x, k, b.repeat(4), padding=1)       # [N,4O,H+1,W+1]
        H, W = x.shape[2], x.shape[3]
        y00 = y[:, :O, :H, :W]; y01 = y[:, O:2 * O, :H, 1:]; y10 = y[:, 2 * O:3 * O, 1:, :W]; y11 = y[:, 3 * O:, 1:, 1:]
        top = torch.stack([y00, y01], 4).reshape(-1, O, H, 2 * W)
        bot = torch.stack([y10, y11], 4).reshape(-1, O, H, 2 * W)
        return torch.stack([top, bot], 3).reshape(-1, O, 2 * H, 2 * W)
    raise ValueError(impl)


def conv_down(x, w, b, impl):
    if impl == 'naive':
        return down2(F.conv2d(x, w, b, padding=1))
    if impl == 'stride':         # 4x4 stride-2 conv: 2.25x fewer MACs
        return F.conv2d(x, fuse4(w) * 0.25, b, stride=2, padding=1)
    raise ValueError(impl)


def prescale(p, sc):
    """weights with the equalized-LR constant applied, once per step"""
    return {k: (v * sc[k[:-7]] if k.endswith('/weight') else v) for k, v in p.items()}


def generator(c, w, z, res, alpha, labels=None):
    """w: prescaled params. res: active resolution log2. alpha: weight of the newest layer (1 = stabilised)."""
    x = z if labels is None else torch.cat([z, labels], 1)
    x = pixelnorm(x)
    n1 = c.nf(1)
    x = F.linear(x, w['4x4/Dense/weight']).reshape(-1, n1, 4, 4) + w['4x4/Dense/bias'].reshape(1, -1, 1, 1)
    x = pixelnorm(lrelu(x))
    x = pixelnorm(lrelu(F.conv2d(x, w['4x4/Conv/weight'], w['4x4/Conv/bias'], padding=1)))
    prev = None
    for r in range(3, res + 1):
        prev = x
        R = '%dx%d/' % (2 ** r, 2 ** r)
        x = pixelnorm(lrelu(up_conv(x, w[R + 'Conv0_up/weight'], w[R + 'Conv0_up/bias'], c.up_impl)))
        x = pixelnorm(lrelu(F.conv2d(x, w[R + 'Conv1/weight'], w[R + 'Conv1/bias'], padding=1)))
    t = 'ToRGB_lod%d/' % (c.rlog2 - res)
    y = F.conv2d(x, w[t + 'weight'], w[t + 'bias'])
    if res > 2 and alpha < 1.0:
        t = 'ToRGB_lod%d/' % (c.rlog2 - res + 1)
        y = torch.lerp(up2(F.conv2d(prev, w[t + 'weight'], w[t + 'bias'])), y, alpha)
    return y


def mbstd(x, group, parts=1):
    N, C, H, W = x.shape
    n = N // parts
    g = min(group, n)
    y = x.reshape(parts, g, n // g, C, H, W)
    y = y - y.mean(dim=1, keepdim=True)
    y = (y.square().mean(dim=1) + 1e-8).sqrt().mean(dim=(2, 3, 4))          # [parts, M]
    y = y.reshape(parts, 1, n // g, 1, 1, 1).expand(parts, g, n // g, 1, H, W).reshape(N, 1, H, W)
    return torch.cat([x, y], 1)


def discriminator(c, w, img, res, alpha, parts=1):
    """-> [N, 1+label_size]. parts: batch is `parts` stacked minibatches whose stddev groups must not mix."""
    t = 'FromRGB_lod%d/' % (c.rlog2 - res)
    x = lrelu(F.conv2d(img, w[t + 'weight'], w[t + 'bias']))
    for r in range(res, 2, -1):
        R = '%dx%d/' % (2 ** r, 2 ** r)
        x = lrelu(F.conv2d(x, w[R + 'Conv0/weight'], w[R + 'Conv0/bias'], padding=1))
        if c.fused_d:
            x = lrelu(conv_down(x, w[R + 'Conv1_down/weight'], w[R + 'Conv1_down/bias'], c.down_impl))
        else:
            x = down2(lrelu(F.conv2d(x, w[R + 'Conv1_down/weight'], w[R + 'Conv1_down/bias'], padding=1)))
        if r == res and alpha < 1.0:
            t = 'FromRGB_lod%d/' % (c.rlog2 - res + 1)
            x = torch.lerp(lrelu(F.conv2d(down2(img), w[t + 'weight'], w[t + 'bias'])), x, alpha)
    if c.mbstd_group > 1:
        x = mbstd(x, c.mbstd_group, parts)
    x = lrelu(F.conv2d(x, w['4x4/Conv/weight'], w['4x4/Conv/bias'], padding=1))
    x = lrelu(F.linear(x.flatten(1), w['4x4/Dense0/weight'], w['4x4/Dense0/bias']))
    return F.linear(x, w['4x4/Dense1/weight'], w['4x4/Dense1/bias'])


def fade_reals(x, alpha):
    return x if alpha >= 1.0 else torch.lerp(up2(down2(x)), x, alpha)


# ---------------------------------------------------------------- training steps (eager autograd)

class Trainer:
    def __init__(self, c, seed=0, lr=1e-3, betas=(0.0, 0.99), eps=1e-8, ema=0.999, concat=True,
                 channels_last=False, opt='fused', lam=10.0, drift=1e-3):
        g = torch.Generator().manual_seed(seed)
        self.c, self.ema_beta, self.concat, self.cl = c, ema, concat, channels_last
        self.lam, self.drift = lam, drift
        gs, ds = g_spec(c), d_spec(c)
        self.gsc, self.dsc = scales(gs), scales(ds)
        mk = lambda p: {k: self.fmt(v).requires_grad_(True) for k, v in p.items()}
        self.G, self.D = mk(init(gs, g)), mk(init(ds, g))
        self.E = {k: v.detach().clone() for k, v in self.G.items()}
        kw = dict(lr=lr, betas=betas, eps=eps)
        kw.update({'fused': dict(fused=True), 'foreach': dict(foreach=True), 'loop': dict(foreach=False)}[opt])
        self.oG = torch.optim.Adam(list(self.G.values()), **kw)
        self.oD = torch.optim.Adam(list(self.D.values()), **kw)

    def fmt(self, v):
        return v.contiguous(memory_format=torch.channels_last) if self.cl and v.dim() == 4 else v

    def d_loss(self, wD, real, fake, eps, res, alpha):
        c, N = self.c, real.shape[0]
        if self.concat:
            s = discriminator(c, wD, torch.cat([real, fake], 0), res, alpha, parts=2)[:, 0]
            sr, sf = s[:N], s[N:]
        else:
            sr = discriminator(c, wD, real, res, alpha)[:, 0]
            sf = discriminator(c, wD, fake, res, alpha)[:, 0]
        mixed = torch.lerp(real, fake, eps).requires_grad_(True)
        sm = discriminator(c, wD, mixed, res, alpha)[:, 0]
        g, = torch.autograd.grad(sm.sum(), mixed, create_graph=True)
        gp = (g.square().sum(dim=(1, 2, 3)).sqrt() - 1.0).square()
        return (sf - sr + self.lam * gp + self.drift * sr.square()).mean(), gp

    def step(self, real, res, alpha):
        c, N = self.c, real.shape[0]
        real = self.fmt(fade_reals(real, alpha))
        # D step
        with torch.no_grad():
            fake = self.fmt(generator(c, prescale(self.G, self.gsc), torch.randn(N, c.latent_size), res, alpha))
        loss_d, _ = self.d_loss(prescale(self.D, self.dsc), real, fake, torch.rand(N, 1, 1, 1), res, alpha)
        loss_d.backward()
        self.oD.step(); self.oD.zero_grad(set_to_none=True)
        # G step (D weights need no gradient here)
        wD = {k: v.detach() for k, v in self.D.items()}
        wD = prescale(wD, self.dsc)
        fake = generator(c, prescale(self.G, self.gsc), torch.randn(N, c.latent_size), res, alpha)
        loss_g = -discriminator(c, wD, fake, res, alpha)[:, 0].mean()
        loss_g.backward()
        self.oG.step(); self.oG.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.E.values()), [v.detach() for v in self.G.values()], 1.0 - self.ema_beta)
        return float(loss_d.detach()), float(loss_g.detach())


# ---------------------------------------------------------------- whole step as functions, for torch.compile

class CompiledTrainer(Trainer):
    """Same maths. The D loss *including* the inner gradient and its outer gradient is traced with
    torch.func and compiled (AOTAutograd itself has no double backward)."""

    def __init__(self, *a, **k):
        super().__init__(*a, **k)
        for d in (self.G, self.D):
            for v in d.values():
                v.requires_grad_(False)
        c = self.c

        def d_grads(D, G, real, z, eps, res, alpha):
            fake = generator(c, prescale(G, self.gsc), z, res, alpha)
            N = real.shape[0]

            def loss(D):
                w = prescale(D, self.dsc)
                s = discriminator(c, w, torch.cat([real, fake], 0), res, alpha, parts=2)[:, 0]
                sr, sf = s[:N], s[N:]
                mixed = torch.lerp(real, fake, eps)
                g = torch.func.grad(lambda m: discriminator(c, w, m, res, alpha)[:, 0].sum())(mixed)
                gp = (g.square().sum(dim=(1, 2, 3)).sqrt() - 1.0).square()
                return (sf - sr + self.lam * gp + self.drift * sr.square()).mean()
            return torch.func.grad_and_value(loss)(D)

        def g_grads(G, D, z, res, alpha):
            wD = prescale(D, self.dsc)

            def loss(G):
                fake = generator(c, prescale(G, self.gsc), z, res, alpha)
                return -discriminator(c, wD, fake, res, alpha)[:, 0].mean()
            return torch.func.grad_and_value(loss)(G)

        self.d_grads = torch.compile(d_grads, dynamic=False)
        self.g_grads = torch.compile(g_grads, dynamic=False)

    @torch.no_grad()
    def step(self, real, res, alpha):
        c, N = self.c, real.shape[0]
        real = self.fmt(fade_reals(real, alpha))
        gr, ld = self.d_grads(self.D, self.G, real, torch.randn(N, c.latent_size), torch.rand(N, 1, 1, 1), res, alpha)
        for k, v in self.D.items():
            v.grad = gr[k]
        self.oD.step(); self.oD.zero_grad(set_to_none=True)
        gr, lg = self.g_grads(self.G, self.D, torch.randn(N, c.latent_size), res, alpha)
        for k, v in self.G.items():
            v.grad = gr[k]
        self.oG.step(); self.oG.zero_grad(set_to_none=True)
        torch._foreach_lerp_(list(self.E.values()), list(self.G.values()), 1.0 - self.ema_beta)
        return float(ld), float(lg)


def build(width, resolution, variant, seed=0):
    fb, fm = {'full': (8192, 512), 'small': (2048, 128), 'tiny': (512, 32)}[width]
    v = set(variant.split('+'))
    c = Cfg(resolution=resolution, fmap_base=fb, fmap_max=fm,
            up_impl='transpose' if 'fused' in v or 'upT' in v else 'phase' if 'phase' in v else 'naive',
            down_impl='stride' if v & {'fused', 'phase', 'downS'} else 'naive')
    cls = CompiledTrainer if 'compile' in v else Trainer
    return cls(c, seed=seed, concat='sep' not in v, channels_last='cl' in v)


def bench(width, resolution, alpha, batch, variant, iters, warmup, threads=2, budget=None):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    t = build(width, resolution, variant)
    res = int(math.log2(resolution))
    real = torch.rand(batch, 3, resolution, resolution) * 2 - 1
    t0 = time.perf_counter()
    for _ in range(warmup):
        t.step(real, res, alpha)
    tw = time.perf_counter() - t0
    ts = []
    t0 = time.perf_counter()
    while len(ts) < iters:
        a = time.perf_counter(); l = t.step(real, res, alpha); ts.append(time.perf_counter() - a)
        if budget and len(ts) >= 2 and time.perf_counter() - t0 > budget:
            break
    med = statistics.median(ts)
    return dict(width=width, res=resolution, phase='stab' if alpha >= 1 else 'fade', batch=batch, variant=variant,
                threads=threads, n=len(ts), sec_med=round(med, 4), sec_min=round(min(ts), 4), sec_max=round(max(ts), 4),
                img_s=round(batch / med, 3), img_s_best=round(batch / min(ts), 3), warm_s=round(tw, 2),
                rss_gib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20, 3), loss=l)


if __name__ == '__main__':
    ap = argparse.ArgumentParser()
    ap.add_argument('--width', default='small'); ap.add_argument('--res', type=int, default=32)
    ap.add_argument('--alpha', type=float, default=1.0); ap.add_argument('--batch', type=int, default=16)
    ap.add_argument('--variant', default='eager'); ap.add_argument('--iters', type=int, default=5)
    ap.add_argument('--warmup', type=int, default=1); ap.add_argument('--threads', type=int, default=2)
    ap.add_argument('--budget', type=float, default=None)
    a = ap.parse_args()
    print(json.dumps(bench(a.width, a.res, a.alpha, a.batch, a.variant, a.iters, a.warmup, a.threads, a.budget)), flush=True)
