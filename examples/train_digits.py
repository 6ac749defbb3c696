"""Train a small network on scikit-learn's handwritten digits: the loop that every user knows."""

import ulpgrad as ug

ug.manual_seed(0)
model = ug.nn.Sequential(ug.nn.Flatten(), ug.nn.Linear(64, 128), ug.nn.ReLU(), ug.nn.Linear(128, 10))
opt = ug.optim.Adam(model.parameters(), lr=3e-3)
loader = ug.data.DataLoader(ug.data.digits(split="train"), batch_size=64, shuffle=True, seed=0)
test = ug.data.digits(split="test")
images, labels = next(iter(ug.data.DataLoader(test, batch_size=len(test))))

for epoch in range(10):
    for x, y in loader:
        loss = ug.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    with ug.no_grad():
        right = ug.mean((ug.argmax(model(images), axis=1) == labels).to(ug.float32))
    print(f"epoch {epoch + 1:2}: loss {loss.item():.4f}, held-out accuracy {right.item():.2%}")
