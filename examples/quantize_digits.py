"""Train a small convolutional network on the digits, then run it in integers: int8 and 16-bit fixed point."""

import ulpgrad as ug
from ulpgrad import nn
from ulpgrad.quantization import compare, quantize

ug.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AvgPool2d(2),
    nn.Flatten(), nn.Linear(128, 10),
)  # fmt: skip
opt = ug.optim.Adam(model.parameters(), lr=3e-3)
train, test = ug.data.digits("train"), ug.data.digits("test")
for _epoch in range(5):
    for x, y in ug.data.DataLoader(train, batch_size=64, shuffle=True, seed=0):
        loss = ug.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()

images, _ = train[:300]  # to calibrate activations on
for weight in ("int8 per channel", "q16"):
    quantized = quantize(model, images, weight=weight, method="mse")
    print(f"\nweights {weight}\n{quantized.summary(batch=64)}\n{compare(model, quantized, test[:])}")
