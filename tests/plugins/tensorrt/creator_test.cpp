// The creator: what it makes of fields, and what it says of wrong ones.
#include <limits>
#include <sstream>

#include "fakes.h"

using namespace nvinfer1;

namespace {

// The fields of one plugin; `get` gives them with one of them changed, or any number added.
struct Good {
    int32_t heads = 2, points = 3;
    int32_t levels[4] = {4, 6, 2, 3};

    Fields get() const {
        return {{"heads", &heads, PluginFieldType::kINT32, 1},
                {"points", &points, PluginFieldType::kINT32, 1},
                {"levels", levels, PluginFieldType::kINT32, 4}};
    }
    Fields with(int index, const PluginField& field) const {
        Fields fields = get();
        fields[index] = field;
        return fields;
    }
};

void refuses(const Fields& fields, const std::vector<std::string>& texts, int line) {
    for (const auto phase : {TensorRTPhase::kBUILD, TensorRTPhase::kRUNTIME}) {
        const Log log;
        const bool isRefused = !create(fields, phase);
        std::vector<std::string> all = {"ProScaleMSDeformAttn 'a node': "};
        all.insert(all.end(), texts.begin(), texts.end());
        Checks::that(isRefused, "made a plugin", line);
        Checks::that(log.isOneErrorWith(all), "message", line);
    }
}
#define REFUSES(fields, ...) refuses(fields, {__VA_ARGS__}, __LINE__)

std::vector<int64_t> valuesOf(const PluginField& field) {
    const auto* first = static_cast<const int64_t*>(field.data);
    return {first, first + field.length};
}

std::vector<std::vector<int64_t>> serialised(IPluginV3& plugin) {
    const PluginFieldCollection& fields = *runtime(plugin).getFieldsToSerialize();
    const std::string names[] = {"heads", "points", "levels"};
    std::vector<std::vector<int64_t>> result;
    CHECK(fields.nbFields == 3);
    for (int i = 0; i < fields.nbFields; ++i) {
        CHECK(fields.fields[i].name == names[i]);
        CHECK(fields.fields[i].type == PluginFieldType::kINT64);
        result.push_back(valuesOf(fields.fields[i]));
    }
    return result;
}

void testIdentity() {
    int32_t count = 0;
    IPluginCreatorInterface* const* creators = getCreators(count);
    CHECK(count == 1);
    CHECK(std::string(creators[0]->getInterfaceInfo().kind) == "PLUGIN CREATOR_V3ONE");
    CHECK(std::string(creator().getPluginName()) == "ProScaleMSDeformAttn");
    CHECK(std::string(creator().getPluginVersion()) == "1");
    CHECK(std::string(creator().getPluginNamespace()).empty());
    const PluginFieldCollection& names = *creator().getFieldNames();
    CHECK(names.nbFields == 3);
    const std::string expected[] = {"heads", "points", "levels"};
    for (int i = 0; i < 3; ++i) CHECK(names.fields[i].name == expected[i]);

    const Plugin plugin = createGood();
    const auto& core = *static_cast<IPluginV3OneCore*>(plugin->getCapabilityInterface(PluginCapabilityType::kCORE));
    CHECK(std::string(core.getInterfaceInfo().kind) == "PLUGIN_V3ONE_CORE");
    CHECK(std::string(build(*plugin).getInterfaceInfo().kind) == "PLUGIN_V3ONE_BUILD");
    CHECK(std::string(runtime(*plugin).getInterfaceInfo().kind) == "PLUGIN_V3ONE_RUNTIME");
    CHECK(std::string(core.getPluginName()) == "ProScaleMSDeformAttn");
    CHECK(std::string(core.getPluginVersion()) == "1");
    CHECK(std::string(core.getPluginNamespace()).empty());
}

void testRoundTrip() {
    const Log log;
    const int64_t heads = 1024, points = 8;
    const int64_t levels[16] = {1, 1, 100, 168, 3, 5, 7, 9, 11, 13, 2, 2, 1, 8, 64, 1};
    const std::vector<std::vector<int64_t>> expected = {{heads}, {points}, {levels, levels + 16}};
    Plugin plugin = create({{"levels", levels, PluginFieldType::kINT64, 16},
                            {"points", &points, PluginFieldType::kINT64, 1},
                            {"heads", &heads, PluginFieldType::kINT64, 1}});
    CHECK(plugin && serialised(*plugin) == expected, "in another order");

    // What TensorRT does: copy the fields into an engine, and read them in another process.
    const auto stored = serialised(*plugin);
    Fields fields;
    for (int i = 0; i < 3; ++i) {
        fields.emplace_back(i == 0   ? "heads"
                            : i == 1 ? "points"
                                     : "levels",
                            stored[i].data(), PluginFieldType::kINT64, static_cast<int32_t>(stored[i].size()));
    }
    plugin.reset();
    Plugin opened = create(fields, TensorRTPhase::kRUNTIME);
    CHECK(opened && serialised(*opened) == expected, "from an engine");

    Plugin copy(opened->clone());
    Plugin attached(runtime(*opened).attachToContext(nullptr));
    opened.reset();
    CHECK(serialised(*copy) == expected, "a clone, after the original is gone");
    CHECK(serialised(*attached) == expected, "a context's, after the original is gone");
    CHECK(copy->getCapabilityInterface(PluginCapabilityType::kBUILD) !=
          attached->getCapabilityInterface(PluginCapabilityType::kBUILD));

    const Plugin narrow = createGood();
    CHECK(serialised(*narrow) == (std::vector<std::vector<int64_t>>{{2}, {3}, {4, 6, 2, 3}}));
    CHECK(log.errors().empty());
}

void testWrongFields() {
    const Good good;
    const Fields fields = good.get();
    const std::string names[] = {"heads", "points", "levels"};
    const float real[4] = {2.f, 3.f, 4.f, 5.f};
    const int32_t two[2] = {2, 3};

    REFUSES({}, "'heads'", "none");
    for (int i = 0; i < 3; ++i) {
        const std::string quoted = "'" + names[i] + "'";
        const char* name = names[i].c_str();

        Fields missing = fields;
        missing.erase(missing.begin() + i);
        REFUSES(missing, quoted, "none");

        Fields twice = fields;
        twice.push_back(fields[i]);
        REFUSES(twice, quoted, "twice");

        for (int32_t type = 0; type < 20; ++type) {
            const auto fieldType = static_cast<PluginFieldType>(type);
            if (fieldType == PluginFieldType::kINT32 || fieldType == PluginFieldType::kINT64) continue;
            REFUSES(good.with(i, {name, real, fieldType, fields[i].length}), quoted, "integer");
        }
        REFUSES(good.with(i, {name, fields[i].data, PluginFieldType::kINT32, 0}), quoted, "no values");
        REFUSES(good.with(i, {name, fields[i].data, PluginFieldType::kINT32, -1}), quoted, "no values");
        REFUSES(good.with(i, {name, nullptr, PluginFieldType::kINT32, fields[i].length}), quoted, "no values");
    }
    REFUSES(good.with(0, {"heads", real, PluginFieldType::kFLOAT32, 1}), "'heads'", "FLOAT32", "export");
    REFUSES(good.with(0, {"heads", two, PluginFieldType::kINT32, 2}), "'heads'", "one integer", "[2, 3]");
    REFUSES(good.with(1, {"points", two, PluginFieldType::kINT32, 2}), "'points'", "one integer", "[2, 3]");
    REFUSES(good.with(2, {"levels", good.levels, PluginFieldType::kINT32, 3}), "'levels'", "[4, 6, 2]");
    const std::vector<int32_t> nine(18, 4);
    REFUSES(good.with(2, {"levels", nine.data(), PluginFieldType::kINT32, 18}), "'levels'", "1 to 8");

    for (const char* name : {"head", "Heads", "plugin_version", "", static_cast<const char*>(nullptr)}) {
        Fields unknown = fields;
        unknown.emplace_back(name, two, PluginFieldType::kINT32, 1);
        REFUSES(unknown, "'" + std::string(name ? name : "") + "'", "unknown", "heads, points and levels");
    }
}

void testOutOfRange() {
    const Good good;
    const int64_t tooFew[] = {0, -1, std::numeric_limits<int64_t>::min()};
    const int64_t tooMany[] = {1025, int64_t{1} << 32, std::numeric_limits<int64_t>::max()};
    for (const auto& values : {tooFew, tooMany}) {
        for (int i = 0; i < 3; ++i) {
            const std::string found = "found " + std::to_string(values[i]);
            REFUSES(good.with(0, {"heads", &values[i], PluginFieldType::kINT64, 1}), "heads: expected 1 to", found,
                    "levels [4, 6, 2, 3]");
            REFUSES(good.with(1, {"points", &values[i], PluginFieldType::kINT64, 1}), "points: expected 1 to 8", found);
            if (values[i] == 1025) continue;  // rows
            const int64_t heights[] = {4, 6, values[i], 3}, widths[] = {4, 6, 2, values[i]};
            REFUSES(good.with(2, {"levels", heights, PluginFieldType::kINT64, 4}), "height of a level", found);
            REFUSES(good.with(2, {"levels", widths, PluginFieldType::kINT64, 4}), "width of a level", found);
        }
    }
    const int32_t huge[] = {8192, 8192, 1, 1};
    REFUSES(good.with(2, {"levels", huge, PluginFieldType::kINT32, 4}), "tokens of all levels", "[8192, 8192, 1, 1]");
}

void testNoCollection() {
    const Log log;
    CHECK(!creator().createPlugin(nullptr, nullptr, TensorRTPhase::kBUILD));
    CHECK(log.isOneErrorWith({"ProScaleMSDeformAttn: attribute 'heads'"}));
}

void testWithoutLogger() {
    std::ostringstream caught;
    std::streambuf* const before = std::cerr.rdbuf(caught.rdbuf());
    create({});
    std::cerr.rdbuf(before);
    CHECK(caught.str().find("'heads'") != std::string::npos, caught.str());
}

}  // namespace

void testCreator() {
    testIdentity();
    testRoundTrip();
    testWrongFields();
    testOutOfRange();
    testNoCollection();
    testWithoutLogger();
}
